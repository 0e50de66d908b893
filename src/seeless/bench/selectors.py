"""What choosing costs: the time every method spends on its decisions, as a share of the prefill, and the memory.

The model is a mid-size random LLaVA on the CPU, sdpa, float32. Its prompts have the fewest equal square images that
make the number of tokens: 2,048 are two of 32 x 32. Time is the processor's, which a machine shared with others changes
little, inside `reduce`, all stages together; attention rows, keys and tower signals are computed there, when they are
asked for. Every round times the untouched prefill and
then every method, and a share is the median over rounds of method / prefill within the round. A method's forward ends
with its last decision. Memory is the largest sum of tensors made and not yet freed inside `reduce`, in a separate run.

    python -m seeless.bench.selectors --output results/selectors.json
"""

import argparse
import math
import platform
import statistics
import subprocess
import sys
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import seeless as sl
from seeless.bench.memory import Allocations
from seeless.cli.console import print_table
from seeless.jsonl import append_lines, encode
from seeless.named.plugins import load_plugins
from seeless.outputs import check_file, replace_file

IMAGE, TEXT_BEFORE, TEXT_AFTER, PATCH = 999, 35, 40, 4
KEEP = 0.25


class Chosen(Exception):
    """The last decision of a forward has been made; what follows is not of interest."""


class Stopwatch:
    """Adds up the processor's seconds in its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.start = time.process_time()

    def __exit__(self, *error: Any) -> None:
        self.seconds += time.process_time() - self.start


def images_of(tokens: int) -> tuple[int, int]:
    """The fewest equal square images of `tokens` tokens together: how many, and their side.

    >>> images_of(576), images_of(2048), images_of(8192)
    ((1, 24), (2, 32), (2, 64))
    """
    count = next(n for n in range(1, tokens + 1) if tokens % n == 0 and math.isqrt(tokens // n) ** 2 == tokens // n)
    return count, math.isqrt(tokens // count)


def build_model(tokens: int, layers: int, hidden: int, heads: int, tower: int) -> LlavaForConditionalGeneration:
    """A random LLaVA whose tower sees images of the size `images_of(tokens)` says."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=1000,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        eos_token_id=None,
    )
    vision = CLIPVisionConfig(
        hidden_size=tower,
        intermediate_size=tower,
        num_hidden_layers=2,
        num_attention_heads=tower // 64,
        image_size=images_of(tokens)[1] * PATCH,
        patch_size=PATCH,
    )
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE, vision_feature_layer=-2)
    return LlavaForConditionalGeneration(config).eval()


def prompt(tokens: int) -> dict[str, torch.Tensor]:
    """The images, text before them and text after them."""
    count, side = images_of(tokens)
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randint(3, 900, (n,), generator=generator) for n in (TEXT_BEFORE, TEXT_AFTER))
    ids = torch.cat([before, torch.full((tokens,), IMAGE), after])[None]
    return {"input_ids": ids, "pixel_values": torch.randn(count, 3, side * PATCH, side * PATCH, generator=generator)}


def strategy_of(name: str) -> sl.Strategy:
    """The method at a quarter of the tokens, or with its own budgets where it takes no single one."""
    try:
        return sl.get(name, keep=KEEP)
    except sl.SeelessError:
        return sl.get(name)


@torch.no_grad()
def forward(model: Any, inputs: dict) -> float:
    """Seconds of the processor for one prefill with cache and the logits of the last position."""
    start = time.process_time()
    model(**inputs, use_cache=True, logits_to_keep=1)
    return time.process_time() - start


def decisions(model: Any, inputs: dict, name: str, watch: AbstractContextManager) -> list[sl.Decision]:
    """What the method decides in one prefill, stage by stage, each made inside `watch`.

    Raises:
        SeelessError: the method cannot run on this model.
    """
    made: list[sl.Decision] = []
    strategy = strategy_of(name)
    reduce, stages = strategy.reduce, len(strategy.layers(model.config.text_config.num_hidden_layers))

    def watched(ctx: sl.Context) -> sl.Decision:
        with watch:
            made.append(reduce(ctx))
        if len(made) == stages:
            raise Chosen
        return made[-1]

    object.__setattr__(strategy, "reduce", watched)  # on this one object, which is frozen
    with sl.apply(model, strategy), suppress(Chosen):
        forward(model, inputs)
    return made


def peak_bytes(model: Any, inputs: dict, name: str) -> int:
    """The most memory that the method's decisions take.

    Raises:
        SeelessError: it cannot run on this model, or there is nothing for it to choose.
    """
    allocations = Allocations()
    made = decisions(model, inputs, name, allocations)
    if not made:
        raise sl.SeelessError("it makes no decision in the language model")
    if all(bool(decision.mask.all()) for decision in made):
        raise sl.SeelessError("it drops nothing of a still image")
    return allocations.peak


def selection(model: Any, inputs: dict, name: str) -> float:
    """Seconds that the method spends on its decisions in one prefill."""
    watch = Stopwatch()
    decisions(model, inputs, name, watch)
    return watch.seconds


def measure(model: Any, inputs: dict, names: list[str], rounds: int) -> tuple[float, dict[str, dict[str, Any]]]:
    """The median prefill in seconds, and per method `seconds`, `share` and `peak_bytes`, or why it was `skipped`."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            found[name] = {"peak_bytes": peak_bytes(model, inputs, name)}
        except sl.SeelessError as error:
            found[name] = {"skipped": str(error)}
    measured = [name for name in names if "skipped" not in found[name]]
    untouched: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    forward(model, inputs)
    for _ in range(rounds):
        untouched.append(forward(model, inputs))
        for name in measured:
            seconds[name].append(selection(model, inputs, name))
    for name in measured:
        shares = [taken / whole for taken, whole in zip(seconds[name], untouched, strict=True)]
        found[name] |= {"seconds": statistics.median(seconds[name]), "share": statistics.median(shares)}
    return statistics.median(untouched), found


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark, print its table and write the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[576, 2048, 8192])
    parser.add_argument("--strategies", nargs="+", metavar="NAME", help="all that are available unless told")
    parser.add_argument("--plugin", type=Path, action="append", default=[], help="file that registers more of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--tower", type=int, default=1024, help="width of the tower, a multiple of 64")
    parser.add_argument("--output", type=Path, help="replaced; FILE.jsonl gets another line")
    options = parser.parse_args(arguments)
    if options.output:
        check_file(options.output)  # now, not after all the work
    torch.set_num_threads(options.threads)
    load_plugins(options.plugin)
    names = options.strategies or sl.available()
    if unknown := set(names) - set(sl.available()):
        parser.error(f"no strategy is called {', '.join(sorted(unknown))}; there are {', '.join(sl.available())}")
    prefill: dict[int, float] = {}
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for tokens in options.tokens:
        model, inputs = (
            build_model(tokens, options.layers, options.hidden, options.heads, options.tower),
            prompt(tokens),
        )
        prefill[tokens], found[tokens] = measure(model, inputs, names, options.rounds)
        print(f"{tokens} visual tokens: prefill {prefill[tokens]:.3g} s", flush=True)

    def cell(row: dict[str, Any]) -> str:
        if "skipped" in row:
            return "-"
        return f"{1e3 * row['seconds']:.3g} ms = {100 * row['share']:.2g} %, {row['peak_bytes'] / 2**20:.3g} MiB"

    lines = [[name, *(cell(found[tokens][name]) for tokens in options.tokens)] for name in names]
    print_table(["method", *map(str, options.tokens)], lines)
    for name in names:
        for reason in dict.fromkeys(found[tokens][name].get("skipped") for tokens in options.tokens):
            if reason is not None:
                print(f"{name} was left out: {reason}")
    if options.output:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        given = sys.argv[1:] if arguments is None else arguments
        data = {
            "command": " ".join(["python -m seeless.bench.selectors", *given]),
            "commit": commit,
            "seeless": sl.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": f"{platform.machine()}, {options.threads} threads",
            "model": {key: getattr(options, key) for key in ("layers", "hidden", "heads", "tower")},
            "rounds": options.rounds,
            "keep": KEEP,
            "prefill_seconds": prefill,
            "methods": {name: {tokens: found[tokens][name] for tokens in options.tokens} for name in names},
        }
        if options.output.suffix == ".jsonl":
            append_lines(options.output, data)
        else:
            replace_file(options.output, encode(data, indent=1) + b"\n")


if __name__ == "__main__":
    # Not as "__main__": what a method raises then went through no code but seeless' own.
    from seeless.bench import selectors

    selectors.main()
