"""SCOPE: choices against gains added up one by one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import A8, X8, cosine, fake_context, kept, random_tensors, unit_of
from seeless.ops.coverage import greedy_cover
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs


def chosen_one_by_one(features, attention, count, alpha=1.0, add=False):
    """The specification with lists; ties to the lower place."""
    n = len(features)
    like = [[cosine(a, b) for b in features] for a in features]
    covered, chosen, scores = [0.0] * n, [], []
    for _ in range(count):
        best = None
        for j in (j for j in range(n) if j not in chosen):
            gain = sum(max(0.0, like[i][j] - covered[i]) for i in range(n))
            score = gain + attention[j] ** alpha if add else gain * attention[j] ** alpha
            if best is None or score > best[0] + 1e-12:
                best = score, j
        scores.append(best[0])
        chosen.append(best[1])
        covered = [max(c, row[best[1]]) for c, row in zip(covered, like, strict=True)]
    return chosen, scores


@pytest.mark.parametrize(
    ("knobs", "order", "scores"),
    [
        ({}, [0, 3, 4, 1], [0.875697, 0.333889, 0.15, 0.021115]),
        ({"combined": "add"}, [6, 2, 0, 4], None),
        ({"alpha": 0.5}, [1, 3, 4, 6], None),
    ],
    ids=str,
)
def test_worked_out(knobs, order, scores):
    context = fake_context(4, 1, 8, layer=0, vision_features=X8, vision_attention=A8[:, None])
    assert kept(sl.SCOPE(keep=4, **knobs).reduce(context)) == [sorted(order)]
    want = chosen_one_by_one(X8[0].tolist(), A8[0].tolist(), 4, knobs.get("alpha", 1.0), "combined" in knobs)
    assert want[0] == order and (scores is None or want[1] == pytest.approx(scores, abs=1e-6))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 14), st.integers(0, 9999), st.sampled_from([0.0, 0.5, 1.0]), st.data())
def test_any_size(units, visual, seed, alpha, data):
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    add = data.draw(st.booleans())
    seen = random_tensors(units, visual, seed)
    strategy = sl.SCOPE(keep=count, alpha=alpha, combined="add" if add else "product")
    decision = strategy.reduce(fake_context(count, units, visual, layer=0, **seen))
    for unit in range(units):
        attention = seen["vision_attention"][unit].sum(0)
        assert torch.equal(decision.scores[unit], attention)
        want, _ = chosen_one_by_one(seen["vision_features"][unit].tolist(), attention.tolist(), count, alpha, add)
        assert kept(decision)[unit] == sorted(want)
        alone = strategy.reduce(fake_context(count, 1, visual, layer=0, **unit_of(seen, unit)))
        assert kept(alone) == [kept(decision)[unit]]


def test_nobody_is_chosen_twice_and_equal_tokens_go_by_place():
    assert greedy_cover(torch.ones(2, 7, 7), 7).tolist() == [list(range(7))] * 2
    assert greedy_cover(-torch.ones(1, 4, 4), 3).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    seen = random_tensors(2, 30, 1)
    narrow = {**seen, "vision_features": seen["vision_features"].to(dtype)}
    wide = {**narrow, "vision_features": narrow["vision_features"].float()}
    one, other = (kept(sl.SCOPE(keep=9).reduce(fake_context(9, 2, 30, layer=0, **x))) for x in (narrow, wide))
    assert one == other


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"alpha": -1.0}, r"alpha=-1\.0 is not possible"),
        ({"alpha": math.nan}, "alpha=nan is not possible"),
        ({"combined": "mul"}, "combined='mul'"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.SCOPE(keep=0.5, **knobs)


@torch.no_grad()
def test_on_a_model(tiny):
    variant = VARIANTS[0]
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.SCOPE(keep=5)) as run:
        model(**inputs)
    tower = untouched.model.vision_tower(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)
    attention = tower.attentions[-2][0, :, 0, 1:].double().sum(0)
    features = tower.hidden_states[-2][0, 1:].double()
    want, _ = chosen_one_by_one(features.tolist(), attention.tolist(), 5)
    assert run.report.stages[0].kept[0].tolist() == sorted(want)
    assert len(want) < int((inputs["input_ids"][0] == IMAGE).sum())
