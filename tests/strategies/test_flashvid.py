"""FlashVID against its description written with lists: who stays, and what becomes of the others."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_videos import plain_diverse, plain_flashvid, whole
from video_decisions import compare, moving, reduced

import seeless as sl
from fake_context import fake_context, kept, top
from seeless.ops.trees import time_trees


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 9999),
    st.booleans(),
    st.data(),
)
def test_what_stays_and_what_it_becomes(units, frames, height, width, seed, as_released, data):
    size, grid = height * width, (frames, height, width)
    keep = data.draw(st.one_of(st.integers(1, frames * size), st.sampled_from([0.1, 0.3, 0.5])))
    strategy = sl.FlashVID(
        keep=keep,
        version=data.draw(st.sampled_from(["v1", "v2"])),
        segments=data.draw(st.integers(1, 4)),
        similarity=data.draw(st.sampled_from([0.3, 0.8])),
        segment_similarity=data.draw(st.sampled_from([0.5, 0.9])),
        diverse=data.draw(st.sampled_from([0.3, 0.7, 1.0])),
        as_released=as_released,
    )
    x = moving(units, grid, seed)
    attention = torch.rand(units, 2, frames * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decision = reduced(strategy, x, grid, attention)
    for unit in range(units):
        importance = attention[unit].mean(0).view(frames, size).tolist()
        compare(decision, unit, plain_flashvid(strategy, x[unit].view(frames, size, -1).tolist(), importance))


@pytest.mark.parametrize(("visual", "later"), [(1, 0.3), (10, 0.3), (11, 0.3), (40, 0.1), (7, 1.0)])
def test_the_second_stage(visual, later):
    attention = torch.rand(2, 3, 1, visual)
    decision = sl.FlashVID(keep=0.25, later=later).reduce(
        fake_context(1, 2, visual, layer=4, stage_index=1, attention=attention)
    )
    count = math.ceil(visual * later)
    assert decision.count == count
    assert kept(decision) == [top(own.mean(0)[0].tolist(), count) for own in attention]


TOY = [[2, 0, 0], [2, 1, 0], [0, 2, 0], [0, 2, 1], [0, 0, 2], [1, 0, 2], [1, 1, 1], [-1, 2, 0]]
IMPORTANCE = [0.30, 0.20, 0.05, 0.10, 0.15, 0.02, 0.08, 0.10]


def test_the_toy_frame():
    """Picks 0, 4, 7, 6 in this order; a frame of eight tokens, of which the budget has four, all chosen."""
    assert plain_diverse(TOY, IMPORTANCE, 4, None) == [0, 4, 7, 6]
    strategy = sl.FlashVID(keep=0.4, diverse=1.0, version="v1")
    x, attention = torch.tensor(TOY, dtype=torch.float32)[None], torch.tensor(IMPORTANCE)[None, None]
    decision = reduced(strategy, x, (1, 2, 4), attention)
    assert kept(decision) == [[0, 4, 6, 7]]


@pytest.mark.parametrize(("frames", "factor"), [(2, 1.0), (3, 1.5), (4, 2.0), (8, 4.0)])
def test_a_chain_of_equal_tokens(frames, factor):
    """The released divisor counts the first token's own children alone; a tree's mean is the token."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(frames, 1)[None]  # the second is chosen in every frame
    for as_released, wanted in ((True, factor), (False, 1.0)):
        apart, first = torch.tensor([False, True]).expand(1, frames, 2), torch.zeros(1, frames).long()
        root, children = time_trees(x.view(1, frames, 2, 2), apart, first, 0.8, 1)
        assert root.view(frames, 2).tolist() == [[0, 2 * f + 1] for f in range(frames)]
        assert frames / (1 + int(children[0, 0]) if as_released else frames) == wanted


def test_budgets_are_rounded_up():
    """196 tokens at 10 %: 25 of a frame, 18 chosen and 7 trees."""
    strategy = sl.FlashVID(keep=0.1)
    x, attention = torch.randn(1, 196, 8), torch.rand(1, 1, 196)
    decision = reduced(strategy, x, (1, 14, 14), attention)
    assert int(decision.mask.sum()) == 25
    assert plain_flashvid(sl.FlashVID(keep=0.9), [[[1.0]] * 4], [[1.0] * 4]) == whole([[[1.0]] * 4])


def test_layers():
    assert [sl.FlashVID(keep=0.1).layers(depth) for depth in (28, 6, 2)] == [[0, 20], [0, 4], [0, 1]]
    assert sl.FlashVID(keep=0.1, layer=28).layers(36) == [0, 28]
    for layer, depth in ((5, 5), (None, 1)):
        with pytest.raises(sl.BudgetError, match="lies outside this model"):
            sl.FlashVID(keep=0.1, layer=layer).layers(depth)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"keep": [0.5, 0.2]}, "one budget drives both stages of flashvid"),
        ({"average": 0.2}, "shares one budget between its stages"),
        ({"keep": 0.2, "threshold": 1}, "takes no threshold"),
        ({"keep": 0.2, "scope": "row"}, "takes videos whole; scope='row'"),
        ({"keep": 0.2, "layer": 0}, "layer=0 is not possible"),
        ({"keep": 0.2, "diverse": 0}, "diverse=0 is no share"),
        ({"keep": 0.2, "later": 1.5}, "later=1.5 is no share"),
        ({"keep": 0.2, "expansion": math.inf}, "expansion=inf"),
        ({"keep": 0.2, "segments": 0}, "segments=0"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.FlashVID(**knobs)
