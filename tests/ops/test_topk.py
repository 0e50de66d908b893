"""`top_mask` and `top_indices` against sorting in plain python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seeless.ops.topk import top_indices, top_mask


def highest(scores, count):
    """The `count` highest; equal scores in the order of their places."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return sorted(order[:count])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=5, max_size=5), min_size=1, max_size=4))
def test_every_count_with_many_ties(units):
    scores = torch.tensor(units, dtype=torch.float32)
    for count in range(6):
        mask = top_mask(scores, count)
        assert mask.dtype is torch.bool and mask.shape == scores.shape
        assert [row.nonzero()[:, 0].tolist() for row in mask] == [highest(unit, count) for unit in units]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_long_rows_of_equal_scores_keep_the_first(dtype):
    mask = top_mask(torch.zeros(2, 600, dtype=dtype), 37)
    assert mask[:, :37].all() and not mask[:, 37:].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_order_is_that_of_a_stable_sort(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-4, 5, (3, 2, 50), generator=generator).to(dtype) / 3
    scores[0, :, ::7], scores[1, 0, 3], scores[1, 1, 4], scores[2, 0, 5] = -0.0, torch.nan, -torch.inf, torch.inf
    for count in (0, 1, 9, 50):
        want = scores.argsort(dim=-1, descending=True, stable=True)[..., :count]
        assert torch.equal(top_indices(scores, count), want)
