"""Bipartite soft matching and groups, against lists."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from seeless.ops.bipartite import ROWS_AT_ONCE, first_of_groups, match_bipartite


def cosine(x, y):
    lengths = math.hypot(*x) * math.hypot(*y)
    return sum(a * b for a, b in zip(x, y, strict=True)) / lengths if lengths else 0.0


def by_lists(keys, count):
    """`(source, target)` pairs, most similar first; of equals the lower places."""
    edges = []
    for a in range(0, len(keys), 2):
        best = None
        for b in range(1, len(keys), 2):
            similar = cosine(keys[a], keys[b])
            if best is None or similar > best[0]:
                best = (similar, b)
        if best is not None:
            edges.append((-best[0], a, best[1]))
    return [(a, b) for _, a, b in sorted(edges)[:count]]


@given(st.integers(1, 4), st.integers(2, 20), st.integers(2, 6), st.data())
def test_matching_is_that_of_lists(units, tokens, dim, data):
    seed = data.draw(st.integers(0, 10**6))
    count = data.draw(st.integers(0, tokens // 2))
    keys = torch.randn(units, tokens, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    source, target = match_bipartite(keys, count)
    assert source.shape == target.shape == (units, count)
    for unit in range(units):
        assert list(zip(source[unit].tolist(), target[unit].tolist(), strict=True)) == by_lists(
            keys[unit].tolist(), count
        )


@given(st.integers(2, 16), st.data())
def test_ties_go_to_the_lower_place(tokens, data):
    """Keys along two axes: all cosines are 0 or 1, so nearly everything is a tie."""
    axes = data.draw(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens))
    keys = torch.eye(2)[torch.tensor(axes)][None]
    count = tokens // 2
    source, target = match_bipartite(keys, count)
    assert list(zip(source[0].tolist(), target[0].tolist(), strict=True)) == by_lists(keys[0].tolist(), count)


def test_long_pictures_are_matched_in_parts():
    tokens = 2 * ROWS_AT_ONCE + 7
    keys = torch.randn(1, tokens, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normed = torch.nn.functional.normalize(keys[0], dim=-1)
    similar = normed[0::2] @ normed[1::2].T
    source, target = match_bipartite(keys, 5)
    assert source[0].tolist() == (2 * similar.amax(1).topk(5).indices).tolist()
    assert target[0].tolist() == (2 * similar.argmax(1)[source[0] // 2] + 1).tolist()


def test_half_precision_is_matched_in_float32():
    keys = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    for have, want in zip(match_bipartite(keys, 4), match_bipartite(keys.float(), 4), strict=True):
        assert torch.equal(have, want)


@given(st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=4))
def test_the_first_of_every_group(groups):
    mask = first_of_groups(torch.tensor(groups))
    assert mask.tolist() == [[number not in row[:i] for i, number in enumerate(row)] for row in groups]
