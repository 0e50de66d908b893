"""EVS against its definition written with lists, and what it does with stills."""

import pytest
import torch
from fake_context_b import FakeSources, context, cosine, kept, top
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from tiny_models import RAGGED, VARIANTS, make_inputs


def video(units, frames, height, width, seed, dtype=torch.float32, dim=6):
    """Frames that partly repeat, as videos do."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(units, 1, height * width, dim, generator=generator)
    step = torch.randn(units, frames, height * width, dim, generator=generator)
    moved = torch.rand(units, frames, height * width, 1, generator=generator) * 0.5
    return (x + (step * moved).cumsum(1)).flatten(1, 2).to(dtype)


def plain_scores(embeds, frame):
    """One unit, a list of vectors in raster order."""
    return [3.0 if i < frame else 1 - cosine(x, embeds[i - frame]) for i, x in enumerate(embeds)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9999), st.data())
def test_scores_and_kept_tokens(units, frames, height, width, seed, data):
    x, frame = video(units, frames, height, width, seed), height * width
    count = data.draw(st.integers(1, frames * frame))
    strategy, grid = sl.EVS(keep=count), (frames, height, width)
    decision = strategy.reduce(context(FakeSources(x), count, grid))
    for unit in range(units):
        scores = plain_scores(x[unit].double().tolist(), frame)
        assert torch.allclose(decision.scores[unit].double(), torch.tensor(scores, dtype=torch.float64), atol=1e-5)
        assert kept(decision)[unit] == top(decision.scores[unit].tolist(), max(frame, count))
        assert kept(decision)[unit][:frame] == list(range(frame))
        alone = strategy.reduce(context(FakeSources(x[unit : unit + 1]), count, grid))
        assert torch.equal(alone.mask[0], decision.mask[unit]) and torch.equal(alone.scores[0], decision.scores[unit])


def test_the_moving_part_stays():
    x = torch.zeros(1, 4, 9, 3) + torch.tensor([1.0, 0, 0])
    x[:, 2:, 4] = torch.tensor([0.0, 1, 0])  # place 4 changes once, in frame 2
    decision = sl.EVS(keep=10).reduce(context(FakeSources(x.flatten(1, 2)), 10, (4, 3, 3)))
    assert kept(decision) == [[*range(9), 2 * 9 + 4]]


@pytest.mark.parametrize("keep", [0.1, 1, 3])
@pytest.mark.parametrize("grid", [None, (1, 3, 4)])
def test_stills_are_left_alone(keep, grid):
    decision = sl.EVS(keep=keep).reduce(context(FakeSources(torch.randn(2, 12, 4)), 2, grid))
    assert decision.mask.all() and decision.scores is None


def test_share_and_threshold():
    x = video(1, 5, 2, 3, 1)
    strategy = sl.EVS(keep=0.55)
    assert strategy.count(0, 30) == 16
    assert len(kept(strategy.reduce(context(FakeSources(x), 16, (5, 2, 3))))[0]) == 16
    scores = plain_scores(x[0].double().tolist(), 6)
    decision = sl.EVS(keep=0.55, threshold=0.1).reduce(context(FakeSources(x), 16, (5, 2, 3)))
    assert kept(decision)[0] == [i for i, score in enumerate(scores) if score > 0.1]
    decision = sl.EVS(keep=0.55, threshold=5).reduce(context(FakeSources(x), 16, (5, 2, 3)))
    assert kept(decision)[0] == list(range(6))
    decision = sl.EVS(keep=9, threshold=0.1).reduce(context(FakeSources(x), 9, (5, 2, 3)))
    assert len(kept(decision)[0]) == 9  # a count outranks a threshold


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["random", "constant", "zero", "huge"])
def test_any_number_type_and_degenerate_features(dtype, kind):
    x = video(2, 3, 2, 2, 0, dtype)
    x = {"random": x, "constant": torch.ones_like(x), "zero": torch.zeros_like(x), "huge": x * 1000}[kind]
    for count in (1, 4, 7, 12):
        decision = sl.EVS(keep=count).reduce(context(FakeSources(x), count, (3, 2, 2)))
        assert decision.scores.isfinite().all()
        assert [len(own) for own in kept(decision)] == [max(4, count)] * 2
    if kind == "constant":
        assert kept(sl.EVS(keep=6).reduce(context(FakeSources(x), 6, (3, 2, 2)))) == [[0, 1, 2, 3, 4, 5]] * 2


@pytest.mark.parametrize("scope", ["row", "crop", "frame"])
def test_only_a_whole_video_can_be_compared(scope):
    with pytest.raises(sl.BudgetError, match=f"scope='{scope}' knows none, use 'image'"):
        sl.EVS(keep=0.5, scope=scope)


def test_defaults():
    strategy = sl.EVS(keep=0.25)
    assert (strategy.scope, strategy.positions) == ("image", "keep")
    assert sl.from_dict(strategy.to_dict()) == strategy


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_on_a_model_for_stills_nothing_changes(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    before = model(**inputs).logits
    for keep in (1.0, 0.3, 2):
        with sl.apply(model, "evs", keep=keep) as run:
            assert torch.equal(model(**inputs).logits, before)
        assert run.report.n_after == run.report.n_before
