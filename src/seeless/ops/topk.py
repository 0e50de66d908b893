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


def top_indices(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Indices `[..., count]` of the highest `scores` `[..., n]`, the highest first; ties go to the lower index.

    What a stable sort gives, without sorting all of them: where few of many are wanted, several times as fast.

    >>> top_indices(torch.tensor([[1.0, 3.0, 2.0, 3.0]]), 3).tolist()
    [[1, 3, 2]]
    """
    if scores.dtype == torch.float64:
        return scores.argsort(dim=-1, descending=True, stable=True)[..., :count]
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ranked = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # in the order of the floats
    last_first = torch.arange(scores.shape[-1] - 1, -1, -1, device=scores.device)
    return (ranked * 2**32 + last_first).topk(count, dim=-1).indices


def ranks_within(scores: torch.Tensor, group: torch.Tensor, size: float = 0.0) -> torch.Tensor:
    """The place of every token in the order of descending `scores` `[units, visual]` among those of its group.

    Args:
        group: `[units, visual]`, numbers of groups.
        size: as for `ranking`, which settles ties.

    >>> ranks_within(torch.tensor([[1.0, 3.0, 2.0, 3.0]]), torch.tensor([[7, 7, 5, 7]])).tolist()
    [[2, 0, 0, 1]]
    """
    order = ranking(scores, size)
    order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
    own = group.gather(1, order)
    place = torch.arange(own.shape[1], device=own.device).expand_as(own)
    fresh = torch.ones_like(own, dtype=torch.bool)
    fresh[:, 1:] = own[:, 1:] != own[:, :-1]
    return torch.empty_like(order).scatter(1, order, place - (place * fresh).cummax(1).values)
