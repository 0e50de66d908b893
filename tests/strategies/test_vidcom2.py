"""VidCom2 against its formulas written with lists."""

import math

import pytest
import torch
from fake_context_b import FakeSources, context, cosine, kept, mean, top
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from tiny_models import RAGGED, VARIANTS, make_inputs


def features(units, frames, size, seed, dtype=torch.float32, dim=5):
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(units, 1, 1, dim, generator=generator)
    own = torch.randn(units, frames, 1, dim, generator=generator) * torch.rand(units, frames, 1, 1, generator=generator)
    return (common + own + 0.3 * torch.randn(units, frames, size, dim, generator=generator)).flatten(1, 2).to(dtype)


def plain_vidcom2(x, frames, count, temperature):
    """One unit, a list of vectors in raster order: scores, tokens per frame and how clear those numbers are."""
    size = len(x) // frames
    g_video = mean(x)
    scores, unique = [], []
    for t in range(frames):
        own = x[t * size : (t + 1) * size]
        g_frame = mean(own)
        unique.append(sum(-cosine(v, g_video) for v in own) / size)
        scores += [-cosine(v, g_video) - cosine(v, g_frame) for v in own]
    power = [math.exp((u - max(unique)) / temperature) for u in unique]
    wanted = [count / frames * (1 + p / sum(power) - 1 / frames) for p in power]
    counts = [min(size, math.floor(w)) for w in wanted]
    left, clear = [w - c for w, c in zip(wanted, counts, strict=True)], 1.0
    for _ in range(count - sum(counts)):  # the one whose remainder is largest, again and again
        room = sorted((t for t in range(frames) if counts[t] < size), key=lambda t: -left[t])
        clear = min([clear, *(left[room[0]] - left[t] for t in room[1:2])])
        counts[room[0]] += 1
        left[room[0]] -= 1
    nearest_whole = min(abs(w - round(w)) for w in wanted)
    return scores, counts, min(clear, nearest_whole)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.01, 0.1, 3]), st.integers(0, 9999))
@pytest.mark.parametrize("whole", ["few", "half", "most", "any"])
def test_scores_and_kept_tokens(whole, units, frames, size, temperature, seed):
    x, total = features(units, frames, size, seed), frames * size
    shares = {"few": 0.1, "half": 0.5, "most": 0.9, "any": torch.rand(1, generator=torch.Generator().manual_seed(seed))}
    count = min(total, max(1, int(total * shares[whole])))
    strategy, grid = sl.VidCom2(keep=count, temperature=temperature), (frames, 1, size)
    decision = strategy.reduce(context(FakeSources(x), count, grid))
    assert [len(own) for own in kept(decision)] == [count] * units
    for unit in range(units):
        alone = strategy.reduce(context(FakeSources(x[unit : unit + 1]), count, grid))
        assert torch.equal(alone.mask[0], decision.mask[unit]) and torch.equal(alone.scores[0], decision.scores[unit])
        scores, counts, clear = plain_vidcom2(x[unit].double().tolist(), frames, count, temperature)
        assert torch.allclose(decision.scores[unit].double(), torch.tensor(scores, dtype=torch.float64), atol=1e-5)
        if frames > 1 and clear < 1e-3:
            continue  # float32 may round a remainder the other way
        want = []
        for t in range(frames):
            own = decision.scores[unit, t * size : (t + 1) * size].tolist()
            want += [t * size + i for i in top(own, counts[t])]
        assert kept(decision)[unit] == want


def one_frame_apart(frames, odd, size):
    """All frames look one way, and one another way."""
    x = torch.zeros(1, frames, size, 3)
    x[..., 0] = 1
    x[:, odd] = torch.tensor([0.0, 1, 0])
    x[..., 2] = torch.linspace(0, 0.1, size)
    return x.flatten(1, 2)


def test_the_frame_that_stands_out_keeps_more():
    x = one_frame_apart(4, 2, 9)
    decision = sl.VidCom2(keep=12).reduce(context(FakeSources(x), 12, (4, 3, 3)))
    per_frame = decision.mask.view(4, 9).sum(1).tolist()
    assert per_frame[2] == 5 and sorted(per_frame) == [2, 2, 3, 5]  # 3 * (2 - 1/4) = 5.25, the others 3 * 3/4


def test_a_full_frame_gives_what_it_has_no_room_for_to_the_others():
    x = one_frame_apart(3, 0, 4)
    decision = sl.VidCom2(keep=9).reduce(context(FakeSources(x), 9, (3, 2, 2)))
    assert decision.mask.view(3, 4).sum(1).tolist() == [4, 3, 2]  # 5, 2 and 2 wanted


@pytest.mark.parametrize("grid", [None, (1, 2, 5)])
def test_a_still_is_one_frame(grid):
    x = features(2, 1, 10, 3)
    decision = sl.VidCom2(keep=4).reduce(context(FakeSources(x), 4, grid))
    for unit in range(2):
        vectors = x[unit].double().tolist()
        assert kept(decision)[unit] == top([-cosine(v, mean(vectors)) for v in vectors], 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["random", "constant", "zero", "huge"])
@pytest.mark.parametrize("frames", [1, 3])
def test_any_number_type_and_degenerate_features(dtype, kind, frames):
    x = features(2, frames, 4, 0, dtype)
    x = {"random": x, "constant": torch.ones_like(x), "zero": torch.zeros_like(x), "huge": x * 1000}[kind]
    for count in {1, 2, 5, 4 * frames} - {5 if frames == 1 else 0}:
        decision = sl.VidCom2(keep=count).reduce(context(FakeSources(x), count, (frames, 2, 2)))
        assert decision.scores.isfinite().all()
        assert [len(own) for own in kept(decision)] == [count] * 2
    if kind in ("constant", "zero") and frames == 3:
        decision = sl.VidCom2(keep=7).reduce(context(FakeSources(x), 7, (3, 2, 2)))
        assert kept(decision) == [[0, 1, 2, 4, 5, 8, 9]] * 2


def test_one_token():
    decision = sl.VidCom2(keep=1).reduce(context(FakeSources(torch.randn(2, 1, 3)), 1, (1, 1, 1)))
    assert kept(decision) == [[0], [0]]


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan, "1", True])
def test_refused_temperatures(temperature):
    with pytest.raises(sl.BudgetError, match="give a number above 0"):
        sl.VidCom2(keep=0.5, temperature=temperature)


def test_other_knobs():
    with pytest.raises(sl.BudgetError, match="takes no threshold"):
        sl.VidCom2(keep=0.5, threshold=0.1)
    strategy = sl.VidCom2(keep=0.25)
    assert strategy.count(0, 99) == 24 and strategy.scope == "image"
    assert sl.from_dict(strategy.to_dict()) == strategy


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_on_a_model(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, "vidcom2", keep=5) as run:
        model(**inputs)
        assert run.report.n_after == [5, 10, 0, 5]
        together = [k.tolist() for k in run.report.stages[0].kept]
        for row, parts in enumerate(RAGGED):
            model(**make_inputs(model, variant, [parts]))
            if run.report.n_before != [0] and row != 2:
                assert run.report.stages[0].kept[0].tolist() == together[row]
