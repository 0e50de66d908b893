"""FastVID against its description written with lists: who stays, and what becomes of the others."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_videos import plain_fastvid
from video_decisions import compare, moving, reduced

import seeless as sl


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
def test_what_stays_and_what_it_becomes(units, frames, height, width, seed, head, data):
    size, grid = height * width, (frames, height, width)
    strategy = sl.FastVID(
        keep=data.draw(st.one_of(st.integers(1, frames * size), st.sampled_from([0.1, 0.3, 0.6]))),
        frames="head" if head else "mean",
        context=data.draw(st.sampled_from([0.0, 0.4, 1.0])),
        segments=data.draw(st.integers(1, 4)),
        segment_similarity=data.draw(st.sampled_from([0.5, 0.9])),
        step=data.draw(st.integers(1, 4)),
        beta=data.draw(st.sampled_from([0.0, 0.6, 1.0])),
    )
    x, generator = moving(units, grid, seed), torch.Generator().manual_seed(seed)
    attention, other = torch.rand(2, units, 2, frames * size, generator=generator, dtype=torch.float64)
    pooled = torch.randn(units, frames, 1, 3, generator=generator, dtype=torch.float64).expand(-1, -1, size, -1)
    decision = reduced(strategy, x, grid, attention, pooling_attention=other, pooled=pooled.flatten(1, 2))
    for unit in range(units):
        importance = (other if head else attention)[unit].mean(0).view(frames, size).tolist()
        vectors = pooled[unit, :, 0].tolist() if head else None
        wanted = plain_fastvid(strategy, x[unit].view(frames, size, -1).tolist(), importance, vectors)
        compare(decision, unit, {p: {i: w for i, w in own.items() if w} for p, own in wanted.items()})


@pytest.mark.parametrize(
    ("frames", "context"),
    [
        (1, [7]),
        (4, [0, 0, 0, 28]),
        (5, [17, 0, 0, 0, 17]),
        (6, [0, 21, 0, 0, 0, 21]),
        (8, [0, 0, 0, 28, 0, 0, 0, 28]),
    ],
)
def test_the_toy_quotas(frames, context):
    """196 tokens at 10 %: 12 salient ones a frame, and 7 of context, in anchor frames counted from the end."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, frames * 196, 4, generator=generator)
    attention = torch.rand(1, 1, frames * 196, generator=generator)
    strategy = sl.FastVID(keep=0.1, segments=1, segment_similarity=-1.0)
    decision = reduced(strategy, x, (frames, 14, 14), attention)
    assert decision.mask.view(frames, 196).sum(1).tolist() == [12 + n for n in context]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"context": 1.2}, "context=1.2 is no share"),
        ({"beta": -1}, "beta=-1 is no share"),
        ({"segments": 0}, "segments=0 is not possible"),
        ({"step": 0}, "step=0 is not possible"),
        ({"siglip": "somewhere"}, 'only frames="head" reads'),
        ({"threshold": 1}, "takes no threshold"),
        ({"scope": "frame"}, "takes videos whole"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.FastVID(keep=0.1, **knobs)


def test_defaults():
    strategy = sl.FastVID(keep=0.1)
    assert (strategy.segments, strategy.segment_similarity, strategy.context) == (8, 0.9, 0.4)
    assert (strategy.step, strategy.beta, strategy.own_positions) == (4, 0.6, "keep")
    assert sl.from_dict(strategy.to_dict()) == strategy
