"""What every method adds to one prefill and to one step of decoding: operations, waits of the host, uploads, calls.

The models are random, as deep as the real ones and as narrow as attention allows: counts do not depend on the width.
Columns are prompts. `b1`: LLaVA, one image of 576 tokens and 75 of text. `b8 equal`: eight of these. `b8 ragged`: eight
with texts of eight lengths, padded on the left. `NeXT b4 ragged`: LLaVA-NeXT, four texts of four lengths, each with an
image of five crops (2,928 tokens with newlines). `Qwen b4 ragged`: Qwen2.5-VL, four texts of four lengths and images of
four sizes (108 to 256 tokens). Every method keeps 64 tokens of an image, those with budgets of their own their own. A
step of decoding comes after that prefill, with the mask that `generate` gives.

    python tests/contracts/count_prefill.py --output operations.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from counting import Calls, Counting
from transformers import (
    Cache,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_clip import save_clip

import seeless as sl

IMAGE, LAYERS, KEEP = 999, 32, 64
QUESTION = "how many digit are there ?"
TEXT = {"vocab_size": 1000, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": LAYERS}
TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 16384}
TEXT |= {"bos_token_id": 1, "eos_token_id": None}
TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}


@dataclass
class Case:
    model: torch.nn.Module
    inputs: dict[str, torch.Tensor]


def tower() -> CLIPVisionConfig:
    return CLIPVisionConfig(**TOWER, image_size=336, patch_size=14, projection_dim=32)


def llava() -> LlavaForConditionalGeneration:
    config = LlavaConfig(text_config=LlamaConfig(**TEXT), vision_config=tower(), image_token_index=IMAGE)
    return LlavaForConditionalGeneration(config)


def llava_next() -> LlavaNextForConditionalGeneration:
    pinpoints = [[336, 672], [672, 336], [672, 672]]
    config = LlavaNextConfig(
        text_config=LlamaConfig(**TEXT), vision_config=tower(), image_token_index=IMAGE, image_grid_pinpoints=pinpoints
    )
    return LlavaNextForConditionalGeneration(config)


def qwen() -> Qwen2_5_VLForConditionalGeneration:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    tower = {"depth": 4, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config={**tower, "fullatt_block_indexes": [3]},
        image_token_id=IMAGE,
        video_token_id=998,
        vision_start_token_id=996,
        vision_end_token_id=997,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def batch(texts: list[int], visual: list[list[int]]) -> dict[str, torch.Tensor]:
    """Per row 35 tokens of text, the visual ones, and as many more of text as is said; padded on the left."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for count, image in zip(texts, visual, strict=True):
        before, after = (torch.randint(3, 900, (n,), generator=generator) for n in (35, count))
        rows.append(torch.cat([before, torch.tensor(image), after]))
    longest = max(map(len, rows))
    pad = [(longest - len(row), 0) for row in rows]
    ids = torch.stack([torch.nn.functional.pad(row, side) for row, side in zip(rows, pad, strict=True)])
    ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
    mask = torch.stack([torch.nn.functional.pad(row, side) for row, side in zip(ones, pad, strict=True)])
    return {"input_ids": ids, "attention_mask": mask}


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def cases() -> dict[str, Case]:
    torch.manual_seed(0)
    one, tiled, dynamic = (build().eval() for build in (llava, llava_next, qwen))
    token = [IMAGE] * 576
    crops = [IMAGE] * (576 + 48 * 49)
    sizes = [(16, 16), (12, 20), (9, 12), (14, 10)]  # of the image, in tokens
    grid = torch.tensor([[1, 2 * height, 2 * width] for height, width in sizes])
    images = [[996, *[IMAGE] * (height * width), 997] for height, width in sizes]
    next_pixels = {"pixel_values": pixels(4, 5, 3, 336, 336), "image_sizes": torch.tensor([[672, 672]] * 4)}
    types = batch([40, 31, 22, 13], images)
    types["mm_token_type_ids"] = (types["input_ids"] == IMAGE).long()
    return {
        "b1": Case(one, {**batch([40], [token]), "pixel_values": pixels(1, 3, 336, 336)}),
        "b8 equal": Case(one, {**batch([40] * 8, [token] * 8), "pixel_values": pixels(8, 3, 336, 336)}),
        "b8 ragged": Case(
            one, {**batch([40 - 3 * i for i in range(8)], [token] * 8), "pixel_values": pixels(8, 3, 336, 336)}
        ),
        "NeXT b4 ragged": Case(tiled, {**batch([40, 31, 22, 13], [crops] * 4), **next_pixels}),
        "Qwen b4 ragged": Case(
            dynamic, {**types, "pixel_values": pixels(int(grid.prod(1).sum()), 1176), "image_grid_thw": grid}
        ),
    }


def strategy_of(name: str, clip: str) -> sl.Strategy:
    """The method with `KEEP` tokens an image; `clip` is a folder with a CLIP model."""
    if name == "router":
        return sl.Router({2: sl.FastV(keep=KEEP), LAYERS // 2: sl.PyramidDrop(keep=KEEP // 2, layer=LAYERS // 2)})
    if name in ("anchorprune", "cdpruner", "eadp"):
        return sl.get(name, keep=KEEP, clip=clip, question=QUESTION)
    if name == "mmtok":
        return sl.MMTok(keep=KEEP, question=QUESTION)
    try:
        return sl.get(name, keep=KEEP)
    except sl.SeelessError:
        return sl.get(name)


@torch.no_grad()
def count(case: Case) -> dict[str, dict]:
    """The numbers of a prefill and of the second and third step after it; first ones may still set things up."""
    model, inputs = case.model, case.inputs
    model(**inputs, use_cache=True, logits_to_keep=1)
    with Counting() as prefill:
        out = model(**inputs, use_cache=True, logits_to_keep=1)
    cache = {name: value for name, value in out.items() if isinstance(value, Cache)}
    token, mask, decode, calls = (
        torch.full((len(inputs["input_ids"]), 1), 5),
        inputs["attention_mask"],
        Counting(),
        Calls(),
    )
    for watch in (nullcontext(), decode, calls):
        positions = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(token)], 1)
        if (deltas := getattr(model.model, "rope_deltas", None)) is not None:
            positions = (positions + deltas).expand(3, -1, -1)
        given = {"input_ids": token, "attention_mask": mask, "position_ids": positions}
        with watch:
            model(**given, use_cache=True, **cache)
    return {"prefill": numbers(prefill), "decode": {**numbers(decode), "hooks": calls.hooks, "calls": calls.calls}}


def numbers(found: Counting) -> dict:
    lines = {"waits_at": found.where, "uploads_at": found.where_uploads, "operations_at": found.where_operations}
    plain = {"operations": found.operations, "waits": found.waits, "uploads": found.uploads}
    return {**plain, **{name: dict(places.most_common()) for name, places in lines.items()}}


def without_lines(found: dict) -> dict:
    """The numbers alone, without the lines of code that they come from."""
    if "refused" in found:
        return found
    return {part: {name: value for name, value in own.items() if isinstance(value, int)} for part, own in found.items()}


def more(found: dict, base: dict) -> dict:
    """What was added to the untouched model."""
    return {
        part: {
            name: value - base[part][name] if isinstance(value, int) else value for name, value in found[part].items()
        }
        for part in found
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=sl.available(), metavar="NAME")
    parser.add_argument("--cases", nargs="+", metavar="COLUMN", help="all of them unless told")
    parser.add_argument("--where", action="store_true", help="print the lines that wait, too")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name: case for name, case in cases().items() if name in (options.cases or [name])}
    untouched = {name: count(case) for name, case in chosen.items()}
    found: dict[str, dict[str, dict]] = {}
    clip_folder = tempfile.TemporaryDirectory()  # until the process ends
    clip = save_clip(clip_folder.name, TOWER["hidden_size"])
    for strategy in options.strategies:
        found[strategy] = {}
        for name, case in chosen.items():
            try:
                with sl.apply(case.model, strategy_of(strategy, clip)):
                    found[strategy][name] = more(count(case), untouched[name])
            except sl.SeelessError as error:
                found[strategy][name] = {"refused": str(error)}
        print(strategy, *(cell(found[strategy][name]) for name in chosen), sep=" | ", flush=True)
        for name in chosen if options.where else []:
            print(f"    {name}: {found[strategy][name].get('prefill', {}).get('waits_at')}")
    if options.output:
        data = {
            "command": "python tests/contracts/count_prefill.py",
            "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
            "seeless": sl.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "untouched": {name: without_lines(own) for name, own in untouched.items()},
            "added": {method: {name: without_lines(own) for name, own in all.items()} for method, all in found.items()},
        }
        options.output.write_text(json.dumps(data, indent=1) + "\n")


def cell(found: dict) -> str:
    """operations / waits / uploads of the prefill; operations / waits / hooks / calls of a step."""
    if "refused" in found:
        return "-"
    prefill, decode = found["prefill"], found["decode"]
    first = [prefill[name] for name in ("operations", "waits", "uploads")]
    return f"{first} step {[decode[name] for name in ('operations', 'waits', 'hooks', 'calls')]}"


if __name__ == "__main__":
    main()
