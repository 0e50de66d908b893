"""Choosing the highest scores, the same way on every device."""

import torch


def top_mask(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Mask `[units, visual]` of the `count` highest `scores` of each unit; ties go to the lower index.

    >>> top_mask(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2).tolist()
    [[False, True, True, False]]
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order[:, :count], True)
