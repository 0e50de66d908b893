"""Requests per second and time to first token with all tokens and with a share of them, in one engine, in turns.

The model is a LLaVA with random weights and 576 tokens to a picture; every picture is new, so no cache answers.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

from both import Request, engine, served
from saved_for_vllm import save_llava


def round_of(llm, keep, first: int, count: int) -> dict:
    """One batch of requests with pictures nobody has seen."""
    asked = [Request("see <image> which digit?", ((first + i, 336, 336),), keep=keep) for i in range(count)]
    start = time.perf_counter()
    outputs = served(llm, asked)
    seconds = time.perf_counter() - start
    return {
        "requests per second": count / seconds,
        "seconds to the first token, median": statistics.median(out.metrics.first_token_latency for out in outputs),
        "tokens of a prompt": len(outputs[0].prompt_token_ids),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategy", default="fastervlm")
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--block", type=int, default=32)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        saved = save_llava(Path(folder), side=336, patch=14, layers=6, hidden_size=512, num_attention_heads=8)
        llm = engine(saved, {"strategy": asked.strategy, "keep": asked.keep}, block_size=asked.block)
        found: dict[str, list[dict]] = {"all": [], "share": []}
        for number in range(asked.rounds + 1):  # the first one warms up
            for which, keep in (("all", 1.0), ("share", None)):
                first = 10_000 * (1 + number) + (5_000 if which == "all" else 0)
                found[which].append(round_of(llm, keep, first, asked.requests))
    for which, rounds in found.items():
        del rounds[0]
        middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        blocks = math.ceil(middle["tokens of a prompt"] / asked.block)
        found[which] = {**middle, "KV blocks of a prompt": blocks}  # type: ignore[assignment]
    ratio = {name: found["share"][name] / found["all"][name] for name in found["all"]}  # type: ignore[index]
    print("MEASURED", json.dumps({**found, "share / all": ratio}, indent=1))


if __name__ == "__main__":
    main()
