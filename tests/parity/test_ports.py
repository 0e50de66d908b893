"""The recordings of PriorTR's ports, through `VTRConfig(**params)` as they were recorded."""

import json
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file
from test_backbones import RECORDED, example, examples, model_of

import seeless as sl
from seeless.core.host import CACHE
from seeless.vtr import VTRConfig

PORTS = sorted(
    (path.parents[1].name, path.parent.name)
    for path in RECORDED.glob("*/*/case.json")
    if "CodeChildCZJ/PriorTR" in json.loads(path.read_text())["original"]["repo"]
)
REFUSED = ("sparsevlm_merge_sdpa",)  # its mask hides the image from the text after a merge
known = {knob.name for knob in fields(VTRConfig)}


def config_of(case):
    released = case["original"]["attn_implementation"] == "sdpa"
    assert set(case["params"]) <= known
    return VTRConfig(**case["params"], as_released=released)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("port", PORTS, ids="-".join)
@torch.no_grad()
def test_recorded(port, kernel):
    backbone, name = port
    model, folder = model_of(backbone, kernel), RECORDED / backbone / name
    about, expected = json.loads((folder / "case.json").read_text()), load_file(folder / "expected.safetensors")
    if name in REFUSED:
        with pytest.raises(sl.UnsupportedModel, match="text no longer sees the image"):
            sl.apply(model, config_of(about))
        return
    for i, given in enumerate(examples(backbone)):
        want = example(expected, i)
        if not want:
            continue
        for pixels in ("pixel_values", "pixel_values_videos"):
            if pixels in given:
                given[pixels] = given[pixels].float()
        steps = len(want["tokens"])
        torch.manual_seed(1234)
        with sl.apply(model, config_of(about)) as run:
            out = model.generate(
                **given, max_new_tokens=steps, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
            torch.manual_seed(1234)
            logits = model(**given).logits[0, -1]
        stages = run.reports[0].stages
        for number, stage in enumerate(stages):
            if f"scores.stage{number}" in want:
                scores = want[f"scores.stage{number}"]
                assert (stage.scores[0] - scores).abs().max() <= 1e-4 * scores.abs().max(), number
            if f"keep_indices.stage{number}" in want:
                kept = want[f"keep_indices.stage{number}"].tolist()
                assert stage.kept[0].tolist() == kept, number
        assert len([key for key in want if key.startswith("scores.stage")]) in (0, len(stages))
        assert (logits - want["logits_last"]).abs().max() < 1e-4
        assert out.sequences[0, -steps:].tolist() == want["tokens"].tolist()
        assert (torch.stack(out.logits)[:, 0] - want["decode_logits"]).abs().max() < 1e-4
        lengths = [layer.keys.shape[-2] for layer in out[CACHE].layers]
        assert lengths == want["final_kv_len"].tolist()
