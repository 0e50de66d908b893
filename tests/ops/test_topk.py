"""`top_mask` against sorting in plain python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seeless.ops.topk import top_mask


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
