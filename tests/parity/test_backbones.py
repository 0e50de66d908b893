"""The recorded originals on five more backbones, reproduced by the native strategies."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import seeless as sl
from seeless.core.host import CACHE

RECORDED = Path(__file__).parent / "recorded"
BACKBONES = ("llavanext", "videollava", "qwen2vl", "qwen3vl", "internvl")
PORTS_ONLY = ("clse", "sparsevlm")  # PriorTR's ports differ from the native methods, as its code does under sdpa
CASES = sorted(
    (backbone, path.parent.name)
    for backbone in BACKBONES
    for path in (RECORDED / backbone).glob("*/case.json")
    if not path.parent.name.startswith(PORTS_ONLY) and not path.parent.name.endswith("_sdpa")
)


@cache
def model_of(backbone, kernel):
    config = json.loads((RECORDED / backbone / "model" / "config.json").read_text())
    cls = getattr(transformers, config["architectures"][0])
    kernels = {"text_config": kernel, "vision_config": "eager"}  # the tower as recorded, so that no near-tie flips
    folder = RECORDED / backbone / "model"
    return cls.from_pretrained(folder, dtype=torch.float32, attn_implementation=kernels).eval()


def example(tensors, i):
    return {key.split(".", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{i}.")}


def examples(backbone):
    inputs = load_file(RECORDED / backbone / "inputs.safetensors")
    return [example(inputs, i) for i in range(1 + max(int(key.split(".")[0]) for key in inputs))]


def strategy_of(backbone, case, kept):
    """`kept`: the recorded number of tokens."""
    params = case["params"]
    match case["method"].split()[0]:
        case "fastervlm":
            newlines = "unpad" in case["case"]
            return sl.FasterVLM(keep=params["visual_token_num"], newlines=newlines, padding=newlines)
        case "vispruner" if "visual_token_num" in params:
            ratio = params["important_ratio"]
            return sl.VisPruner(keep=params["visual_token_num"], important_ratio=ratio)
        case "vispruner":
            return sl.VisPruner(keep=kept, important_ratio=params["important_ratio"], as_released=False)
        case "fastv":
            query = params["query_aggregation"]
            return sl.FastV(keep=kept, layer=params["prune_layer"], query_aggregation=query, past="trim")
        case "priortr":
            return sl.PriorTR(
                keep=kept,
                layer=params["prune_layer"],
                query_aggregation=params["query_aggregation"],
                head_aggregation=params["head_aggregation"],
                last_row=not backbone.startswith("qwen"),
            )
        case "priortr_2f":
            return sl.PriorTR2F(
                keep=kept,
                layer=params["prune_layer"],
                query_aggregation=params["query_aggregation"],
                head_aggregation=params["head_aggregation"],
                prior_layer="next" if backbone == "videollava" else "same",
                as_released=backbone == "qwen3vl",  # recorded with eager attention: its prior is zero
            )


def test_all_cases_of_the_issue_are_here():
    assert len(CASES) == 17


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
@torch.no_grad()
def test_recorded(case, kernel):
    backbone, name = case
    model, folder = model_of(backbone, kernel), RECORDED / backbone / name
    about, expected = json.loads((folder / "case.json").read_text()), load_file(folder / "expected.safetensors")
    done = 0
    for i, given in enumerate(examples(backbone)):
        want = example(expected, i)
        for pixels in ("pixel_values", "pixel_values_videos"):
            if pixels in given:
                given[pixels] = given[pixels].float()
        spans = want.get("keep_indices.stage0", want.get("keep_span_or_minus1"))
        if bool((spans < 0).any()):  # the original kept padding that the stock model cuts away
            continue
        done += 1
        strategy = strategy_of(backbone, {**about, "case": name}, len(spans))
        steps = len(want["tokens"])
        with sl.apply(model, strategy) as run:
            out = model.generate(
                **given, max_new_tokens=steps, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
            logits = model(**given).logits[0, -1]
        stage = run.reports[0].stages[0]
        assert stage.kept[0].tolist() == sorted(spans.tolist())
        if about["method"] == "priortr_2f":
            if backbone == "qwen3vl":
                assert bool((want["prior_attention"] == 0).all())  # what `as_released` stands for
            scores = want["scores.stage0"]
            assert (stage.scores[0] - scores).abs().max() <= 1e-4 * scores.abs().max()
        if "scores.stage0" in want and not backbone.endswith("llava") and backbone != "llavanext":
            scores = want["scores.stage0"]
            if about["method"].startswith(("priortr", "fastv")):
                assert (stage.scores[0] - scores).abs().max() <= 1e-4 * scores.abs().max()
        assert (logits - want["logits_last"]).abs().max() < 1e-4
        assert out.sequences[0, -steps:].tolist() == want["tokens"].tolist()
        assert (torch.stack(out.logits)[:, 0] - want["decode_logits"]).abs().max() < 1e-4
        lengths = [layer.keys.shape[-2] for layer in out[CACHE].layers]
        assert lengths == want["final_kv_len"].tolist()
    assert done > 0 or "spatial" in name
