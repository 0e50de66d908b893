"""The recorded originals (LLaVA-1.5 geometry): same tokens kept, same scores, logits, caches and answers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

import seeless as sl
from seeless.core.host import CACHE

RECORDED = Path(__file__).parent / "recorded" / "llava15"
EXAMPLES = 4


def strategy_of(case: dict) -> sl.Strategy:
    params = case["params"]
    match case["method"]:
        case "fastv":
            return sl.FastV(keep=1 - params["fastv_r"], layer=params["fastv_k"])
        case "priortr":
            return sl.PriorTR(
                keep=params["keep_tokens"],
                layer=params["prune_layer"],
                query_aggregation=params["query_aggregation"],
                head_aggregation=params["head_aggregation"],
            )
        case "pyramiddrop":
            return sl.PyramidDrop(layer=params["layer_list"], keep=params["image_token_ratio_list"])
        case "fastervlm":
            return sl.FasterVLM(keep=params["visual_token_num"])
        case "vispruner":
            return sl.VisPruner(keep=params["visual_token_num"], important_ratio=params["important_ratio"])
        case "clse":
            return sl.CLSE(keep=params["retain_token"], layer=params["K_list"])
    raise AssertionError(case["method"])


METHODS = ("fastv", "priortr", "pyramiddrop", "fastervlm", "vispruner", "clse")
OTHERS = ("train", "nocache", "port")  # tested elsewhere
CASES = sorted(
    path.parent.name
    for path in RECORDED.glob("*/case.json")
    if path.parent.name.startswith(METHODS) and not any(word in path.parent.name for word in OTHERS)
)


def inputs_of(name: str) -> list[int]:
    """Which inputs a case was recorded on, all of them unless it says; what it expects is numbered from 0."""
    return json.loads((RECORDED / name / "case.json").read_text()).get("input_indices", list(range(EXAMPLES)))


RUNS = [(name, i) for name in CASES for i in range(len(inputs_of(name)))]


def example(tensors: dict, i: int) -> dict:
    return {key.split(".", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{i}.")}


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request):
    # The tower stays eager, as recorded: VisPruner's similarities lie so close together on these random weights that
    # another kernel's rounding in the tower decides some of them differently.
    kernels = {"text_config": request.param, "vision_config": "eager"}
    return LlavaForConditionalGeneration.from_pretrained(
        RECORDED / "model", dtype=torch.float32, attn_implementation=kernels
    ).eval()


@pytest.fixture(scope="module")
def inputs():
    return load_file(RECORDED / "inputs.safetensors")


def test_all_cases_of_the_six_methods_are_here():
    assert len(CASES) == 13 and {case.split("_")[0] for case in CASES} == set(METHODS)


@pytest.mark.parametrize(("name", "i"), RUNS)
@torch.no_grad()
def test_recorded(model, inputs, name, i):
    case = json.loads((RECORDED / name / "case.json").read_text())
    want = example(load_file(RECORDED / name / "expected.safetensors"), i)
    given = example(inputs, inputs_of(name)[i])
    given["pixel_values"] = given["pixel_values"].float()
    strategy = strategy_of(case)
    assert sl.from_dict(json.loads(json.dumps(strategy.to_dict()))) == strategy

    with sl.apply(model, strategy) as run:
        steps = len(want["tokens"])
        out = model.generate(
            **given, max_new_tokens=steps, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        logits = model(**given).logits[0, -1]

    report = run.reports[0]
    for stage, done in enumerate(report.stages):
        assert done.kept[0].tolist() == want[f"keep_indices.stage{stage}"].tolist()
        if f"scores.stage{stage}" in want:
            scores = want[f"scores.stage{stage}"]
            assert (done.scores[0] - scores).abs().max() <= 1e-4 * scores.abs().max()
    assert (logits - want["logits_last"]).abs().max() < 1e-4
    assert out.sequences[0, -steps:].tolist() == want["tokens"].tolist()
    assert (torch.stack(out.logits)[:, 0] - want["decode_logits"]).abs().max() < 1e-4
    lengths = [layer.keys.shape[-2] for layer in out[CACHE].layers]
    assert lengths == want["final_kv_len"].tolist()
    assert report.visual[-1] == [len(done.kept[0])]


@torch.no_grad()
def test_prefill_cache_lengths(model, inputs):
    for name in CASES:
        case = json.loads((RECORDED / name / "case.json").read_text())
        want = example(load_file(RECORDED / name / "expected.safetensors"), 0)
        given = example(inputs, inputs_of(name)[0])
        given["pixel_values"] = given["pixel_values"].float()
        with sl.apply(model, strategy_of(case)):
            cache = model(**given)[CACHE]
        assert [layer.keys.shape[-2] for layer in cache.layers] == want["prefill_kv_len"].tolist(), name


@torch.no_grad()
def test_fastv_without_cache_ranks_anew_at_every_step(model, inputs):
    """The FastV repository's own setting: no KV cache, another choice of tokens for every new token."""
    folder = RECORDED / "fastv_k3_r90_nocache"
    params = json.loads((folder / "case.json").read_text())["params"]
    strategy = sl.FastV(keep=1 - params["fastv_r"], layer=params["fastv_k"])
    for i in range(EXAMPLES):
        want = example(load_file(folder / "expected.safetensors"), i)
        given = example(inputs, i)
        given["pixel_values"] = given["pixel_values"].float()
        steps = len(want["tokens"])
        with sl.apply(model, strategy) as run:
            ids = model.generate(**given, max_new_tokens=steps, do_sample=False, use_cache=False)
        assert ids[0, -steps:].tolist() == want["tokens"].tolist()
        kept = [report.stages[0].kept[0].tolist() for report in run.reports]
        assert kept == want["keep_indices_per_step"].tolist()
