"""What counts as a tie, against sorting in plain Python, and choices that rounding must not change."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seeless.ops.bipartite import match_bipartite
from seeless.ops.chunks import share_out
from seeless.ops.dpp import greedy_map
from seeless.ops.farthest import farthest_points
from seeless.ops.raters import text_raters
from seeless.ops.similarity import drop_duplicates
from seeless.ops.ties import SPAN, first_of_best, ranking, rounding
from seeless.ops.topk import top_mask

SLACK = rounding(torch.float32)


def plain_ranking(scores, size):
    """Runs of ties, one number after the other."""
    down = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    runs, widest, last = [], 0.0, 0
    for before, i in zip([None, *down], down, strict=False):
        chained = before is not None and scores[before] - scores[i] <= SLACK * max(abs(scores[before]), size)
        if not chained:
            head, widest = scores[i], SPAN * SLACK * max(abs(scores[i]), size, torch.finfo(torch.float32).tiny)
        step = math.floor((head - scores[i]) / widest)
        if not chained or step != last:
            runs.append([])
        last = step
        runs[-1].append(i)
    return [i for run in runs for i in sorted(run)]


def near(draw_from=(-2.0, -1.0, 0.0, 0.5, 3.0)):
    """Numbers of which many are a few units in the last place, or a few times the slack, apart."""
    return st.tuples(st.sampled_from(draw_from), st.integers(-40, 40)).map(lambda v: v[0] + v[1] * SLACK / 8)


@settings(max_examples=200, deadline=None)
@given(st.lists(near(), min_size=1, max_size=30), st.sampled_from([0.0, 1.0]))
def test_ranking_of_near_ties(values, size):
    scores = torch.tensor([values], dtype=torch.float32)
    found, exact = ranking(scores, size)[0].tolist(), scores[0].tolist()
    assert sorted(found) == list(range(len(values)))
    assert found == plain_ranking(exact, size) or on_an_edge(exact, size)


def on_an_edge(exact, size):
    """Whether float64 here and float32 there may see a difference on two sides of what still ties."""
    down = sorted(exact, reverse=True)
    tiny = 1e-7 * max(1.0, *map(abs, exact))
    edges = [SLACK * max(abs(a), size) * k for a in down for k in range(1, 20)]
    return any(abs((a - b) - edge) < tiny / 4 for a in down for b in down if a > b for edge in edges)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32, allow_subnormal=False), min_size=1, max_size=40), st.data())
def test_what_is_kept_is_worth_more_but_for_rounding(values, data):
    count = data.draw(st.integers(0, len(values)))
    mask = top_mask(torch.tensor([values]), count)[0]
    assert mask.sum() == count
    kept = [v for v, stays in zip(values, mask.tolist(), strict=True) if stays]
    gone = [v for v, stays in zip(values, mask.tolist(), strict=True) if not stays]
    if kept and gone:
        assert min(kept) >= max(gone) - (SPAN + 1) * SLACK * max(abs(min(kept)), abs(max(gone)))


def test_many_numbers_that_follow_closely_are_not_one_tie():
    falling = torch.linspace(1.0, 0.99, 40_000)[None]
    shuffled = torch.randperm(40_000, generator=torch.Generator().manual_seed(0))
    mask = top_mask(falling[:, shuffled], 10_000)[0]
    assert falling[0, shuffled][mask].min() > falling[0, 10_000] - (SPAN + 1) * SLACK


def test_rounding_does_not_order_equal_numbers():
    scores = torch.tensor([[0.3, 0.1, 0.3, 0.2, 0.3]])
    for seed in range(20):
        assert ranking(stirred(scores, seed)).tolist() == [[0, 2, 4, 3, 1]]
        assert first_of_best(stirred(scores, seed)).tolist() == [[0]]


def stirred(x, seed):
    """`x` as another batch might round it: every number up to two units in the last place away."""
    step = torch.randint(-2, 3, x.shape, generator=torch.Generator().manual_seed(seed))
    return x * (1 + step * torch.finfo(x.dtype).eps)


def with_twins(seed, dim=24):
    """One unit of 40 tokens of which 8 are one and the same, and 10 occur twice."""
    tokens = torch.randn(22, dim, generator=torch.Generator().manual_seed(seed))
    every = torch.cat([tokens, tokens[:10], tokens[10:11].expand(8, dim)])
    return every[torch.randperm(40, generator=torch.Generator().manual_seed(seed))][None]


def kernel_of(tokens, stir):
    """As CDPruner makes it: of what the model rounded, in float64."""
    directions = torch.nn.functional.normalize(stir(tokens).double(), dim=-1)
    worth = torch.linspace(0.2, 1, tokens.shape[1])[torch.unique(tokens[0], dim=0, return_inverse=True)[1]][None]
    return worth[:, :, None] * (directions @ directions.transpose(1, 2)) * worth[:, None, :]


CHOICES = {
    "farthest points": lambda x, stir, count: farthest_points(stir(x), count),
    "greedy map": lambda x, stir, count: greedy_map(kernel_of(x, stir), count),
    "of few dimensions": lambda x, stir, count: greedy_map(kernel_of(x[..., :5], stir), count),
    "most similar pairs": lambda x, stir, count: torch.cat(match_bipartite(stir(x), min(count, 20)), 1),
}


@pytest.mark.parametrize("count", [1, 7, 14, 21, 25, 33, 40])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_rounding_does_not_choose_among_equal_tokens(choice, count):
    for seed in range(5):
        x = with_twins(seed)
        want = choice(x, lambda x: x, count)
        for noise in range(10):
            assert torch.equal(choice(x, lambda x, noise=noise: stirred(x, noise), count), want), (seed, noise)


def test_of_equal_tokens_the_first_goes_first():
    x = with_twins(3)
    same = torch.unique(x[0], dim=0, return_inverse=True)[1].tolist()
    chosen = farthest_points(stirred(x, 1), 25)[0].tolist()
    for token in chosen:
        assert {i for i in range(token) if same[i] == same[token]} <= set(chosen)
        assert chosen.index(token) >= max((chosen.index(i) for i in range(token) if same[i] == same[token]), default=0)


def test_equal_tokens_are_thinned_alike_whatever_stands_beside_them():
    for seed in range(5):
        x, order = with_twins(seed), torch.arange(40)[None]
        want = drop_duplicates(x, order, 12)[0]
        batch = torch.cat([torch.randn(4, 40, 24), x, torch.randn(2, 40, 24)])
        assert torch.equal(drop_duplicates(batch, order.expand(7, -1), 12)[4], want)


def test_equal_parts_share_alike():
    sizes = [9] * 8
    for seed in range(50):
        weight = stirred(torch.tensor([[3.0, 1.0, 3.0, 1.0, 3.0, 1.0, 3.0, 1.0]]), seed)
        assert share_out(weight, sizes, 16).tolist() == [[3, 1] * 4]
        assert share_out(weight, sizes, 18).tolist() == [[4, 1, 4, 1, 3, 1, 3, 1]]


def test_equal_words_are_all_raters():
    text = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0)).expand(1, 9, 16)
    for seed in range(20):
        visual = torch.randn(1, 50, 16, generator=torch.Generator().manual_seed(seed))
        assert text_raters(visual, stirred(text, seed)).all()
