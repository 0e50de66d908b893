"""What a training step saves with fewer visual tokens, on a mid-size random LLaVA on this machine.

A step is forward, backward and AdamW on a batch of one-image conversations. Every setting runs in a process of its own,
so that peak memory is its own; the processes take turns, so that drift of the machine hits all of them alike. Times are
medians over rounds, ratios medians of untouched / reduced within a round, all of them by the clock and once more by the
processor's time, which a busy neighbour changes less. "of saving" is the time saved as a share of what FLOPs promise.

FLOPs are those of `seeless.flops`: of the tower and the projector as in a prefill, of the decoder with the tokens each
layer sees, of the head at every position (the loss needs it, a prefill does not). A part that is trained counts three
times its forward (forward, gradients of its inputs, gradients of its weights). The tower is frozen, nothing before it
needs gradients, and counts once. Norms, activations, scoring and the optimizer, which touches every weight whatever the
tokens, count nothing.

    python -m seeless.bench.train_step --output results/train_step.json
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import seeless as sl
from seeless.jsonl import encode
from seeless.outputs import check_file, replace_file
from seeless.provenance import provenance
from seeless.train.metrics import peak_memory

IMAGE, VISUAL, TEXT_BEFORE, VOCABULARY = 999, 576, 35, 900
BACKWARD = 3  # a trained part's operations, as multiples of its forward
SETTINGS: dict[str, sl.Strategy | None] = {"untouched": None, "pyramiddrop": sl.PyramidDrop()}


@dataclass(frozen=True)
class Size:
    """The model (decoder layers and width) and the batch (rows and tokens of each, 576 visual ones included)."""

    layers: int = 12
    hidden: int = 768
    batch: int = 2
    length: int = 700


def build_model(layers: int, hidden: int) -> LlavaForConditionalGeneration:
    """A random LLaVA-1.5 with 576 visual tokens, a small tower and a decoder of `layers` x `hidden`."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=1000,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        eos_token_id=None,
    )
    tower = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=336, patch_size=14
    )
    config = LlavaConfig(text_config=text, vision_config=tower, image_token_index=IMAGE, vision_feature_layer=-2)
    return LlavaForConditionalGeneration(config).eval()


def training_batch(size: Size) -> dict[str, torch.Tensor]:
    """Rows of text, one image and text, the last half of which is the answer."""
    generator = torch.Generator().manual_seed(0)
    after = size.length - VISUAL - TEXT_BEFORE
    before, question = (
        torch.randint(3, VOCABULARY, (size.batch, n), generator=generator) for n in (TEXT_BEFORE, after)
    )
    ids = torch.cat([before, torch.full((size.batch, VISUAL), IMAGE), question], 1)
    labels = ids.clone()
    labels[:, : size.length - after // 2] = -100
    pixels = torch.randn(size.batch, 3, 336, 336, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "pixel_values": pixels}


def training_flops(report: sl.Report, size: Size, reduced: bool) -> int:
    """Operations of a step, as the module says."""
    cost = report.flops_after if reduced else report.flops_before
    head = cost.lm_head * size.length
    return cost.tower + BACKWARD * (cost.projector + cost.decoder + head)


def serve(name: str, size: Size, threads: int) -> None:
    """One setting: prints a line of JSON, then one more for every line on stdin (a step), until stdin ends."""
    torch.set_num_threads(threads)
    model = build_model(size.layers, size.hidden)
    model.requires_grad_(True).train()
    model.model.vision_tower.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    batch = training_batch(size)
    strategy = SETTINGS[name]
    handle = sl.apply(model, sl.Uniform(keep=1.0) if strategy is None else strategy)
    with torch.no_grad():
        model(**batch, use_cache=False)
    report = handle.report
    if strategy is None:
        handle.remove()
    told = {
        "flops": training_flops(report, size, reduced=strategy is not None),
        "visual_tokens": report.average_tokens,
        "weights": sum(p.numel() for p in model.parameters()),
    }
    print(json.dumps(told), flush=True)
    for _ in sys.stdin:
        start, processor = time.perf_counter(), time.process_time()
        loss = model(**batch, use_cache=False).loss
        middle = time.perf_counter()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        end, worked = time.perf_counter(), time.process_time() - processor
        took = {"seconds": end - start, "cpu_seconds": worked, "forward_seconds": middle - start}
        print(json.dumps({**took, "peak_memory": peak_memory()}), flush=True)


class Server:
    """A process that runs one setting."""

    def __init__(self, name: str, size: Size, threads: int) -> None:
        sizes = [f"--{key}={value}" for key, value in asdict(size).items()]
        command = [sys.executable, "-m", "seeless.bench.train_step", "--serve", name, f"--threads={threads}", *sizes]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = self._read()

    def _read(self) -> dict[str, Any]:
        pipe: IO[str] = self.process.stdout  # type: ignore[assignment]
        line = pipe.readline()
        if not line:
            raise RuntimeError(f"the process ended with {self.process.wait()}; what it said is above")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        """Run one step."""
        pipe: IO[str] = self.process.stdin  # type: ignore[assignment]
        pipe.write("step\n")
        pipe.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def measure(size: Size, rounds: int, threads: int) -> dict[str, Any]:
    """All settings, one after the other in every round; the first round warms up."""
    servers: dict[str, Server] = {}
    try:
        for name in SETTINGS:
            servers[name] = Server(name, size, threads)
        steps: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS}
        for number in range(rounds + 1):
            order = list(SETTINGS) if number % 2 else list(SETTINGS)[::-1]  # nobody always comes first
            for name in order:
                taken = servers[name].step()
                if number:
                    steps[name].append(taken)
    finally:
        for server in servers.values():
            server.close()
    full = servers["untouched"].told["flops"]
    return {
        name: {**server.told, **_summary(steps["untouched"], steps[name], full / server.told["flops"])}
        for name, server in servers.items()
    }


def _summary(untouched: list[dict], own: list[dict], promised: float) -> dict[str, float | None]:
    """Medians of one setting's steps, and how they compare with the untouched ones of the same rounds."""
    row: dict[str, float | None] = {
        key: statistics.median(step[key] for step in own) for key in ("seconds", "cpu_seconds", "forward_seconds")
    }
    row |= {"peak_memory": own[-1]["peak_memory"], "promised_speed_up": promised}
    for kind in ("", "cpu_"):
        ratios = (
            full[f"{kind}seconds"] / reduced[f"{kind}seconds"] for full, reduced in zip(untouched, own, strict=True)
        )
        row[f"{kind}speed_up"] = gained = statistics.median(ratios)
        row[f"{kind}saving_reached"] = None if promised == 1 else (1 - 1 / gained) / (1 - 1 / promised)
    return row


def main() -> None:
    """Run the benchmark, print its table and write it to the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", choices=list(SETTINGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.output:
        check_file(options.output)  # now, not after all the work
    size = Size(options.layers, options.hidden, options.batch, options.length)
    if options.serve:
        serve(options.serve, size, options.threads)
        return
    torch.set_num_threads(options.threads)
    rows = measure(size, options.rounds, options.threads)
    print(f"{rows['untouched']['weights'] / 1e6:.0f} million weights, {size.batch} rows of {size.length} tokens")
    columns = ("step", "CPU", "forward", "memory", "GFLOPs", "promised", "speed-up", "of saving", "by CPU", "of saving")
    print(f"{'setting':14}" + "".join(f"{column:>11}" for column in columns))
    for name, row in rows.items():
        gains = ""
        for kind in ("", "cpu_"):
            share = row[f"{kind}saving_reached"]
            gains += f"{row[f'{kind}speed_up']:11.2f}" + (f"{'-':>11}" if share is None else f"{100 * share:10.0f}%")
        print(
            f"{name:14}{row['seconds']:9.2f} s{row['cpu_seconds']:9.2f} s{row['forward_seconds']:9.2f} s"
            f"{row['peak_memory'] / 2**30:7.2f} GiB{row['flops'] / 1e9:11.0f}{row['promised_speed_up']:11.2f}{gains}"
        )
    if options.output:
        command = shlex.join(["python", "-m", "seeless.bench.train_step", *sys.argv[1:]])
        line = {"command": command, **provenance(), "rounds": options.rounds}
        replace_file(options.output, encode({**line, **asdict(size), "settings": rows}, indent=2) + b"\n")


if __name__ == "__main__":
    main()
