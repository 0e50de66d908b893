"""DyCoke's stage before the decoder against its definition written with lists, and the counts its code gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import cosine, fake_context, kept


def plain_dycoke(frames, drop, as_released=False):
    """Places that stay of one video; `frames`: lists of vectors, one list per frame."""
    size, left = len(frames[0]), int((1 - drop) * len(frames[0]))
    if len(frames) == 1:
        return list(range(size))
    stays = {}
    for t in range(len(frames)):
        stays[t] = list(range(size))
    for t in range(0, len(frames) - 1, 2):
        stays[t + 1] = least_like(frames[t + 1], frames[t], left)
    for t in range(0, len(frames), 4):
        if (t < len(frames) - 4) if as_released else (t + 2 < len(frames)):
            stays[t + 2] = least_like(frames[t + 2], frames[t], left)
    if as_released and len(frames) % 2:
        del stays[len(frames) - 1]
    return [t * size + p for t in sorted(stays) for p in stays[t]]


def least_like(frame, before, count):
    likeness = [cosine(a, b) for a, b in zip(frame, before, strict=True)]
    return sorted(sorted(range(len(frame)), key=lambda p: (likeness[p], p))[:count])


def reduced(strategy, embeds, grid):
    units, visual = embeds.shape[:2]
    return strategy.reduce(fake_context(strategy.count(0, visual), units, visual, grid=grid, layer=0, embeds=embeds))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 11),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.booleans(),
    st.integers(0, 9999),
)
def test_who_stays(units, frames, height, width, drop, as_released, seed):
    x = torch.randn(units, frames * height * width, 4, generator=torch.Generator().manual_seed(seed))
    strategy = sl.DyCoke(drop=drop, as_released=as_released)
    decision = reduced(strategy, x, (frames, height, width))
    for unit in range(units):
        own = x[unit].double().view(frames, height * width, 4).tolist()
        assert kept(decision)[unit] == plain_dycoke(own, drop, as_released)
        assert decision.count == len(kept(decision)[unit])


def in_direction(likeness):
    """A unit vector of this cosine to (1, 0)."""
    return [likeness, (1 - likeness**2) ** 0.5]


def test_the_toy_video():
    """Eight frames of four tokens, of which two stay; the released code keeps frame 6 whole."""
    same = [[1.0, 0.0]] * 4
    frames = [same, [[0, 0]] * 4, [], [[0, 0]] * 4, same, [[0, 0]] * 4, same, [[0, 0]] * 4]
    to_first = [0.7, 0.9, 0.1, 0.3]
    frames[2] = [in_direction(c) for c in to_first]
    for t, likeness in {
        1: [0.9, 0.2, 0.5, 0.8],
        3: [0.1, 0.2, 0.3, 0.4],
        5: [0.4, 0.3, 0.2, 0.1],
        7: [0.5, 0.6, 0.7, 0.1],
    }.items():
        before = frames[t - 1]
        frames[t] = []
        for (a, b), c in zip(before, likeness, strict=True):  # turned from its own place's vector
            x, y = in_direction(c)
            frames[t].append([a * x - b * y, a * y + b * x])
    x = torch.tensor(frames).view(1, 32, 2)
    decision = reduced(sl.DyCoke(drop=0.5, as_released=True), x, (8, 2, 2))
    of_frames = [decision.mask[0].view(8, 4)[t].nonzero()[:, 0].tolist() for t in range(8)]
    whole = [0, 1, 2, 3]
    assert of_frames == [whole, [1, 2], [2, 3], [0, 1], whole, [2, 3], whole, [0, 3]]
    assert decision.count == 22
    assert reduced(sl.DyCoke(drop=0.5), x, (8, 2, 2)).count == 20


@pytest.mark.parametrize(
    ("frames", "drop", "released", "all_of_it"),
    [(32, 0.7, 3098, 2960), (32, 0.3, 4915, 4856), (8, 0.7, 878, 740), (5, 0.7, 370, 566), (1, 0.7, 196, 196)],
)
def test_published_counts(frames, drop, released, all_of_it):
    x = torch.randn(1, frames * 196, 2, generator=torch.Generator().manual_seed(0))
    for as_released, count in ((True, released), (False, all_of_it)):
        decision = reduced(sl.DyCoke(drop=drop, as_released=as_released), x, (frames, 14, 14))
        assert decision.count == int(decision.mask.sum()) == count


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_equal_tokens_go_by_their_places(dtype, value):
    x = torch.full((2, 5 * 4, 3), value, dtype=dtype)
    decision = reduced(sl.DyCoke(drop=0.5), x, (5, 2, 2))
    assert kept(decision) == [[0, 1, 2, 3, 4, 5, 8, 9, 12, 13, 16, 17, 18, 19]] * 2


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"keep": 0.5}, "keep=0.5 is not possible: how many tokens dycoke keeps follows"),
        ({"keep": 1}, "keep=1 is not possible"),
        ({"average": 0.5}, "keep=0.5 is not possible"),
        ({"drop": 1.2}, "drop=1.2 is no share"),
        ({"threshold": 0.5}, "takes no threshold"),
        ({"scope": "frame"}, "scope='frame' knows none, use 'image'"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.DyCoke(**knobs)


def test_half_a_video_cannot_be_compared():
    from dataclasses import replace

    context = replace(fake_context(4, 1, 7, layer=0, embeds=torch.randn(1, 7, 2)), frames=(2, 4))
    with pytest.raises(sl.InputError, match="compares the frames of a video place by place"):
        sl.DyCoke().reduce(context)


def test_defaults():
    strategy = sl.DyCoke()
    assert (strategy.keep, strategy.drop, strategy.newlines) == (None, 0.3, True)
    assert sl.from_dict(strategy.to_dict()) == strategy and not strategy.keeps_all(0)
    assert sl.DyCoke(keep=1.0).keeps_all(0)
