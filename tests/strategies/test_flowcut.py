"""FlowCut: scores and counts, layer by layer, and what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_patches import plain_cut, plain_flow

import seeless as sl
from fake_context import fake_patches, kept, top


@given(st.integers(1, 3), st.integers(2, 30), st.data())
@settings(max_examples=20)
def test_scores_and_counts_are_those_of_lists(pictures, tokens, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    budget, layer = data.draw(st.integers(1, tokens)), data.draw(st.sampled_from([0, 1, 2, 3, 18, 19, 20, 21]))
    attention = torch.randn(pictures, 3, tokens, generator=generator).mul(2).softmax(-1)
    values, own = (torch.randn(pictures, 3, *n, 4, generator=generator) for n in ((tokens,), ()))
    before = torch.rand(pictures, tokens, generator=generator) if layer else None
    context = fake_patches(
        *(budget, pictures, (1, tokens)),
        layer=layer + 1,
        scores=before,
        class_attention=attention,
        values=values,
        class_value=own,
    )
    decision = sl.FlowCut(keep=budget).leave(context)
    for picture in range(pictures):
        towards = attention[picture].double().mean(0).tolist()
        score = plain_flow(towards, values[picture].double().tolist(), own[picture].double().tolist())
        if before is not None:
            score = [(old + new) / 2 for old, new in zip(before[picture].tolist(), score, strict=True)]
        assert decision.scores[picture].tolist() == pytest.approx(score, rel=1e-4)
        leave = plain_cut(towards, budget, layer, 22)
        assert kept(decision)[picture] == top(decision.scores[picture].tolist(), tokens - leave)


def test_the_schedule_of_llava():
    """Layers 1, 3, ... 21 of CLIP's 24; the narrower the class token looks, the more leave."""
    assert sl.FlowCut(keep=64).tower_layers(22) == list(range(1, 23))
    even, narrow = [1.0] * 576, [100.0] + [1e-6] * 575
    assert [layer for layer in range(22) if plain_cut(narrow, 64, layer, 22)] == list(range(1, 22, 2))
    assert plain_cut(even, 64, 1, 22) == 0 and plain_cut(even, 64, 21, 22) == 512
    assert 113 <= plain_cut(narrow, 64, 1, 22) <= 114  # 512 / sqrt(20) = 114.5, less what little entropy there is


@pytest.mark.parametrize("knobs", [{"scope": "row"}, {"threshold": 0.5}, {"keep": [0.5]}, {"keep": 0}])
def test_impossible_fields_are_refused(knobs):
    with pytest.raises(sl.BudgetError):
        sl.FlowCut(**{"keep": 0.5, **knobs})


def test_a_tower_without_a_layer_before_the_features_is_refused():
    with pytest.raises(sl.BudgetError, match="no layer before it"):
        sl.FlowCut(keep=0.5).tower_layers(0)
