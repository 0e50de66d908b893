"""What a handle costs, and what a reduction saves, on a mid-size random LLaVA on this machine.

Every round times all settings once, in rotating order, so that drift of the machine hits them alike; a ratio is the
median over rounds of setting / untouched within the round.

    python -m seeless.bench.prefill --rounds 30 --threads 2 --output results/prefill.jsonl
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import Cache, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import seeless as sl
from seeless.jsonl import append_lines
from seeless.outputs import check_file

IMAGE, TEXT_BEFORE, TEXT_AFTER = 999, 35, 40
SETTINGS: dict[str, list[sl.Strategy]] = {
    "keep everything, entry and layers": [
        sl.FasterVLM(keep=1.0),
        sl.FastV(keep=1.0, layer=2),
        sl.PyramidDrop(keep=[1.0, 1.0, 1.0]),
    ],
    "fastv, one token dropped": [sl.FastV(keep=575, layer=2)],
    "fastv keep=0.25": [sl.FastV(keep=0.25, layer=2)],
    "fastervlm keep=0.25": [sl.FasterVLM(keep=0.25)],
    "vispruner keep=0.25": [sl.VisPruner(keep=0.25)],
    "priortr keep=0.25": [sl.PriorTR(keep=0.25, layer=3)],
    "pyramiddrop": [sl.PyramidDrop()],
}


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


def prompt() -> dict[str, torch.Tensor]:
    """One image of 576 tokens in a prompt of 651."""
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randint(3, 900, (n,), generator=generator) for n in (TEXT_BEFORE, TEXT_AFTER))
    ids = torch.cat([before, torch.full((576,), IMAGE), after])[None]
    return {"input_ids": ids, "pixel_values": torch.randn(1, 3, 336, 336, generator=generator)}


@torch.no_grad()
def prefill(model: LlavaForConditionalGeneration, inputs: dict) -> float:
    """Seconds of one forward with cache and the logits of the last position."""
    start = time.perf_counter()
    model(**inputs, use_cache=True, logits_to_keep=1)
    return time.perf_counter() - start


@torch.no_grad()
def decoder_prefill(model: LlavaForConditionalGeneration, inputs: dict) -> float:
    """Seconds of one forward inside the language model: decoder layers, and everything the handle does around them."""
    decoder, ticks = model.model.language_model, []
    hooks = [
        decoder.register_forward_pre_hook(lambda *_: ticks.append(time.perf_counter()), prepend=True),
        decoder.register_forward_hook(lambda *_: ticks.append(time.perf_counter())),
    ]
    try:
        model(**inputs, use_cache=True, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return ticks[1] - ticks[0]


@torch.no_grad()
def decode(model: LlavaForConditionalGeneration, inputs: dict, steps: int = 24) -> float:
    """Seconds per step of decoding after a prefill."""
    out = model(**inputs, use_cache=True, logits_to_keep=1)
    token, cache = torch.tensor([[5]]), {name: value for name, value in out.items() if isinstance(value, Cache)}
    start = time.perf_counter()
    for _ in range(steps):
        model(input_ids=token, use_cache=True, **cache)
    return (time.perf_counter() - start) / steps


def in_turn(
    model: LlavaForConditionalGeneration, inputs: dict, rounds: int, measure: Callable
) -> dict[str, list[float]]:
    """Seconds of every setting in every round; "untouched" among them."""
    seconds: dict[str, list[float]] = {"untouched": [], **{name: [] for name in SETTINGS}}
    for number in range(rounds + 1):
        turn = number % len(seconds)  # nobody always comes first
        for name in [*list(seconds)[turn:], *list(seconds)[:turn]]:
            if name == "untouched":
                taken = measure(model, inputs)
            else:
                with sl.apply(model, SETTINGS[name]):
                    taken = measure(model, inputs)
            if number:  # the first round warms up
                seconds[name].append(taken)
    return seconds


def reports(model: LlavaForConditionalGeneration, inputs: dict) -> dict[str, sl.Report]:
    """One report per setting."""
    found = {}
    for name, strategies in SETTINGS.items():
        with torch.no_grad(), sl.apply(model, strategies) as run:
            model(**inputs, logits_to_keep=1)
        found[name] = run.report
    return found


def main() -> None:
    """Run the benchmark, print its table and append one JSON line to the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.output:
        check_file(options.output)  # now, not after all the work
    torch.set_num_threads(options.threads)
    model, inputs = build_model(options.layers, options.hidden), prompt()
    known = reports(model, inputs)
    rows = {}
    times = {
        "prefill": in_turn(model, inputs, options.rounds, prefill),
        "decoder": in_turn(model, inputs, options.rounds, decoder_prefill),
        "decode": in_turn(model, inputs, options.rounds, decode),
    }
    untouched = {kind: statistics.median(seconds["untouched"]) for kind, seconds in times.items()}
    print(f"untouched: prefill {1e3 * untouched['prefill']:.1f} ms, decode step {1e3 * untouched['decode']:.2f} ms")
    print("ratios to the untouched model; speed-up of the decoder's prefill, as its FLOPs promise and as reached")
    print(f"{'setting':36} {'prefill':>9} {'decode':>9} {'speed-up':>9} {'promised':>9} {'reached':>9}")
    for name, report in known.items():
        ratio = {
            kind: statistics.median(a / b for a, b in zip(seconds[name], seconds["untouched"], strict=True))
            for kind, seconds in times.items()
        }
        promised = report.flops_before.decoder / report.flops_after.decoder
        reached = 1 / ratio["decoder"] / promised
        rows[name] = {**{f"{kind}_ratio": value for kind, value in ratio.items()}, "promised_speed_up": promised}
        print(
            f"{name:36} {ratio['prefill']:9.3f} {ratio['decode']:9.3f} {1 / ratio['decoder']:9.2f} "
            f"{promised:9.2f} {100 * reached:8.0f}%"
        )
    if options.output:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        line = {
            "command": " ".join(["python -m seeless.bench.prefill", *sys.argv[1:]]),
            "commit": commit,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": f"{platform.machine()}, {options.threads} threads",
            "untouched_seconds": untouched,
            "settings": rows,
        }
        append_lines(options.output, line)


if __name__ == "__main__":
    main()
