"""EADP: importance and choices against sums written with lists, as released and as in the paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import A8, X8, cosine, fake_context, kept, mean, random_tensors
from seeless.ops.coverage import greedy_cover
from seeless.ops.grids import smoothed


def softmax(row):
    top = max(row)
    powers = [math.exp(x - top) for x in row]
    return [p / sum(powers) for p in powers]


def mirrored(i, size):
    return i if 0 <= i < size else (0 if size == 1 else (-i if i < 0 else 2 * size - 2 - i))


def blurred(values, height, width):
    weight = [math.exp(-0.5), 1.0, math.exp(-0.5)]
    total = sum(a * b for a in weight for b in weight)
    return [
        sum(
            weight[dy + 1] * weight[dx + 1] * values[mirrored(y + dy, height) * width + mirrored(x + dx, width)]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        )
        / total
        for y in range(height)
        for x in range(width)
    ]


def importance(patches, words, whole, sides, sign, share, temperature=0.01, gamma=0.01, mu=0.5):
    """Equations 2 to 11 with lists."""
    likes = [[sign * cosine(t, v) for v in patches] for t in words]
    entropy = [-sum(p * math.log(p) for p in softmax([c / temperature for c in row]) if p > 0) for row in likes]
    spoken = sorted(range(len(words)), key=lambda i: (round(entropy[i], 9), i))[
        : max(1, int(share * len(words) + 1e-9))
    ]
    weight = softmax([-entropy[i] / gamma for i in spoken])
    dense = [sum(w * likes[i][j] for w, i in zip(weight, spoken, strict=True)) for j in range(len(patches))]
    plain = [sum(sign * cosine(v, e) for e in whole) / len(whole) for v in patches]
    s = [mu * g + (1 - mu) * d for g, d in zip(plain, dense, strict=True)]
    low, high = min(s), max(s)
    return blurred([(x - low) / (high - low) if high > low else 1.0 for x in s], *sides)


def chosen_one_by_one(weights, tokens, count, halved):
    """Equations 13 and 14 with lists."""
    n = len(tokens)
    like = [[cosine(a, b) for b in tokens] for a in tokens]
    like = [[(c + 1) / 2 for c in row] for row in like] if halved else like
    covered, chosen = [0.0] * n, []
    for _ in range(count):
        best = None
        for u in (u for u in range(n) if u not in chosen):
            gain = sum(weights[j] * max(0.0, like[u][j] - covered[j]) for j in range(n))
            if best is None or gain > best[0] + 1e-12:
                best = gain, u
        chosen.append(best[1])
        covered = [max(c, like[best[1]][j]) for j, c in enumerate(covered)]
    return chosen


def test_worked_out():
    assert chosen_one_by_one(A8[0].tolist(), X8[0].tolist(), 4, True) == [6, 0, 2, 4]
    x = torch.nn.functional.normalize(X8, dim=-1)
    assert greedy_cover(A8[..., None] * (x @ x.transpose(1, 2) + 1) / 2, 4).tolist() == [[6, 0, 2, 4]]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(1, 1), (1, 5), (3, 4), (2, 2)]), st.integers(0, 999))
def test_smoothing(sides, seed):
    values = torch.rand(2, sides[0] * sides[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for own, got in zip(values, smoothed(values, (1, *sides)), strict=True):
        assert got.tolist() == pytest.approx(blurred(own.tolist(), *sides))


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 2),
    st.sampled_from([(1, 1), (1, 5), (3, 4), (2, 3)]),
    st.integers(2, 7),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9999),
    st.data(),
)
def test_any_size(units, sides, words, clip, released, seed, data):
    visual = sides[0] * sides[1]
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    seen = random_tensors(units, visual, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    text, patches, pooled = (
        torch.randn(units, n, 5, generator=generator, dtype=torch.float64) for n in (words, visual, 1)
    )
    more = {"clip_tokens": text, "clip_patches": patches, "clip_text": pooled, "token_embeds": text, "question": "any"}
    strategy = sl.EADP(keep=count, clip="any" if clip else None, as_released=released, temperature=0.5, beta=2.0)
    context = fake_context(count, units, visual, layer=0, grid=(1, *sides), **seen, **more)
    decision = strategy.reduce(context)
    sign, share = (-1, 0.2) if released else (1, 0.5)
    for unit in range(units):
        own = text[unit].tolist()
        if clip:
            spoken, points, whole = own if released else own[:-1], patches[unit].tolist(), pooled[unit].tolist()
        else:
            spoken, points, whole = own, seen["embeds"][unit].tolist(), [mean(own)]
        want = importance(points, spoken, whole, sides, sign, share, temperature=0.5)
        assert decision.scores[unit].tolist() == pytest.approx(want, abs=1e-9)
        weights = [w**2 for w in decision.scores[unit].tolist()]
        tokens = seen["embeds"][unit].tolist()
        assert kept(decision)[unit] == sorted(chosen_one_by_one(weights, tokens, count, released))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"mu": 1.5}, r"mu=1\.5 is no share"),
        ({"quantile": 0.0}, r"quantile=0\.0 is no share"),
        ({"temperature": 0.0}, r"temperature=0\.0 is not possible"),
        ({"gamma": math.inf}, "gamma=inf is not possible"),
        ({"beta": -1.0}, r"beta=-1\.0 is not possible"),
        ({"clip": ""}, "clip='' is no text"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.EADP(keep=0.5, **knobs)
