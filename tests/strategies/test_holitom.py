"""HoliTom against its description written with lists: windows, who stays, and what becomes of the others."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_videos import plain_folding, plain_holitom, plain_static_windows
from video_decisions import compare, moving, reduced

import seeless as sl
from fake_context import fake_context, top
from seeless.ops.windows import static_windows


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 9999), st.sampled_from([0.2, 0.5, 0.9]))
def test_windows_save_the_most(frames, places, seed, share):
    """Against every partition, and which of equals."""
    above = torch.rand(2, frames - 1, places, generator=torch.Generator().manual_seed(seed)) < share
    first, saved = static_windows(above, 1024)
    for unit in range(2):
        windows, total = plain_static_windows(above[unit].tolist()) if frames > 1 else ([(0, 0)], 0)
        assert first[unit].tolist() == [a for a, b in windows for _ in range(a, b + 1)]
        assert saved[unit] == total == max(savings(above[unit].tolist(), frames), default=0)


def savings(above, frames):
    """Of every partition into windows."""
    for cuts in range(2 ** (frames - 1)):
        edges = [0, *(f + 1 for f in range(frames - 1) if cuts >> f & 1), frames]
        yield sum(
            (b - 1 - a) * sum(all(above[f][j] for f in range(a, b - 1)) for j in range(len(above[0])))
            for a, b in zip(edges, edges[1:], strict=False)
            if b - a > 1
        )


def test_windows_of_at_most_so_many_frames():
    first, saved = static_windows(torch.ones(1, 5, 2, dtype=torch.bool), 2)
    assert first.tolist() == [[0, 0, 2, 2, 4, 4]] and saved.tolist() == [6]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 9999),
    st.data(),
)
def test_what_stays_and_what_it_becomes(units, frames, height, width, seed, data):
    size, grid = height * width, (frames, height, width)
    keep = data.draw(st.one_of(st.integers(1, frames * size), st.sampled_from([0.05, 0.3, 0.5, 0.9])))
    beta = data.draw(st.sampled_from([0.0, 0.6, 1.0]))
    strategy = sl.HoliTom(keep=keep, beta=beta, similarity=data.draw(st.sampled_from([0.5, 0.8, 0.95])))
    x = moving(units, grid, seed)
    attention = torch.rand(units, 2, frames * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decision = reduced(strategy, x, grid, attention)
    for unit in range(units):
        importance = attention[unit].mean(0).view(frames, size).tolist()
        wanted = plain_holitom(strategy, x[unit].view(frames, size, -1).tolist(), importance)
        compare(decision, unit, {p: {i: w for i, w in own.items() if w} for p, own in wanted.items()})


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2), st.integers(1, 12), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 9999))
def test_the_second_stage(units, visual, later, seed):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(units, visual, 4, generator=generator, dtype=torch.float64)
    attention = torch.rand(units, 2, 1, visual, generator=generator, dtype=torch.float64)
    strategy = sl.HoliTom(keep=0.2, later=later)
    decision = strategy.reduce(
        fake_context(1, units, visual, layer=4, stage_index=1, visual=states, attention=attention)
    )
    count = max(1, round(visual * later))
    assert decision.count == count
    for unit in range(units):
        stay = top(attention[unit].mean(0)[0].tolist(), count)
        compare(decision, unit, plain_folding(states[unit].tolist(), stay))


def test_the_toy_video():
    """Five frames of four places: windows 0-2 and 3-4, eight saved; three of ten become half of what is left."""
    rows = [[0.9, 0.9, 0.9, 0.1], [0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9]]
    first, saved = static_windows(torch.tensor([rows]) > 0.8, 1024)
    assert first.tolist() == [[0, 0, 0, 3, 3]] and saved.tolist() == [8]
    assert pytest.approx(0.5) == 0.3 * 20 / (20 - 8)


def test_the_toy_folding():
    """(8 / 2 + 0 / 2) / 2 + 4 / 2 = 4."""
    states = torch.tensor([[[8.0, 1.0], [0.0, 1.0], [4.0, 1.0]]])
    attention = torch.tensor([1.0, 0.0, 0.0])[None, None, None]
    context = fake_context(1, 1, 3, layer=4, stage_index=1, visual=states, attention=attention)
    decision = sl.HoliTom(keep=0.1, later=0.3).reduce(context)
    assert decision.values(states)[0, 0].tolist() == [4.0, 1.0]


def test_one_frame_has_a_known_count():
    x, attention = torch.randn(1, 7, 4), torch.rand(1, 1, 7)
    for keep, count in ((0.3, 3), (2, 2), (0.01, 1), (100, 7)):
        context = fake_context(1, 1, 7, grid=(1, 1, 7), layer=0, embeds=x, vision_attention=attention)
        decision = sl.HoliTom(keep=keep).reduce(context)
        assert decision.count == int(decision.mask.sum()) == count


def test_defaults():
    strategy = sl.HoliTom(keep=0.1)
    assert (strategy.similarity, strategy.beta, strategy.later) == (0.8, 0.6, 0.5)
    assert [strategy.layers(depth) for depth in (28, 32, 6)] == [[0, 18], [0, 21], [0, 4]]
    assert sl.from_dict(strategy.to_dict()) == strategy


@pytest.mark.parametrize(
    "knobs", [{"beta": 1.5}, {"later": 0}, {"later": 2}, {"threshold": 1.0}, {"scope": "crop"}], ids=str
)
def test_refused(knobs):
    with pytest.raises(sl.BudgetError, match=f"{next(iter(knobs))}|a number of tokens"):
        sl.HoliTom(keep=0.1, **knobs)
