"""Choosing the highest scores, the same way on every device and in every batch."""

import torch

from seeless.ops.ties import ranking


def top_mask(scores: torch.Tensor, count: int, size: float = 0.0) -> torch.Tensor:
    """Mask `[units, visual]` of the `count` highest `scores` of each unit; ties, as `ranking` has them with `size`, go
    to the lower index.

    >>> top_mask(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2).tolist()
    [[False, True, True, False]]
    """
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, ranking(scores, size)[:, :count], True)
