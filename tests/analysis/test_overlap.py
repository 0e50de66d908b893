"""How far methods keep the same tokens, against their rankings worked out from the untouched model's own maps."""

import pytest
import torch

import seeless as sl
from seeless.analysis import Gathered, KeptOverlap, Seen
from tinies import IMAGE, TINIES, make_inputs

VISUAL, KEPT = 16, 6


@torch.no_grad()
def test_intersection_over_union_layer_by_layer():
    model, eager = TINIES[0].build("sdpa"), TINIES[0].build("eager")
    inputs = make_inputs(model, TINIES[0], [[5, "image:0", 9]])
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    maps = eager(**inputs, output_attentions=True).attentions
    tower = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[-2]
    by_text = set(maps[1][0][:, -1, columns].mean(0).topk(KEPT).indices.tolist())
    by_tower = set(tower[0, :, 0, 1:].mean(0).topk(KEPT).indices.tolist())
    methods = {"fastv": sl.FastV(keep=KEPT, layer=2), "fastervlm": sl.FasterVLM(keep=KEPT)}
    methods["again"] = methods["fastv"]
    study = KeptOverlap({"6": methods})
    gathered = Gathered().with_one("picture", study.measure(Seen(model, inputs, None), []))
    found = {tuple(pair["methods"]): pair for pair in study.numbers(gathered)["6"]}
    both = len(by_text & by_tower) / len(by_text | by_tower)
    early, late = [KEPT / VISUAL] * 2, [both] * 4  # before its cut, FastV's layers have all tokens
    assert found["fastv", "fastervlm"]["overlap"] == pytest.approx(early + late)
    assert found["fastv", "again"]["overlap"] == [1.0] * 6
    common = KEPT * KEPT / VISUAL
    by_chance = [KEPT / VISUAL] * 2 + [common / (2 * KEPT - common)] * 4
    assert found["fastv", "fastervlm"]["chance"] == pytest.approx(by_chance)


def test_one_method_overlaps_with_nothing():
    with pytest.raises(sl.InputError, match="two methods or more"):
        KeptOverlap({"0.5": {"fastv": sl.FastV(keep=0.5)}})
