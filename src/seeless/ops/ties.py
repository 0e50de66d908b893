"""What counts as a tie: numbers that rounding alone may set apart. The lower index goes first.

In a batch the same row may be computed in another order of additions than alone, and at the end of a matrix a token in
another one than an equal token at its beginning. Which tokens stay must not depend on that.
"""

import torch

ULPS = 8  # units in the last place that rounding may make of a few sums
SPAN = 8  # a run of ties is at most so many times wider than what sets two of them apart


def rounding(dtype: torch.dtype) -> float:
    """What rounding may make of numbers of size 1 that were worked out in this dtype: 2 ** -20 in float32."""
    return ULPS * torch.finfo(dtype).eps


def ranking(scores: torch.Tensor, size: float = 0.0) -> torch.Tensor:
    """Places in the order of descending `scores` along the last dimension, ties in ascending order of place.

    Going down, a number ties with the one before if it is less by at most `rounding` times that one, or times `size`,
    if that is more. However closely they follow each other, after `SPAN` times that a new run of ties begins.

    Args:
        scores: `[..., visual]`, in the dtype they were worked out in; below float32 they count as float32.
        size: of the numbers that scores are differences of: 1 for cosines, 0 for sums of numbers of one sign.

    Returns:
        `[..., visual]`, a permutation.

    >>> ranking(torch.tensor([[1.0, 3.0, 3.0000005, 2.0]])).tolist()
    [[1, 2, 3, 0]]
    """
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    down, order = wide.sort(dim=-1, descending=True, stable=True)
    slack = down.abs().clamp(min=max(size, torch.finfo(down.dtype).tiny)) * rounding(down.dtype)
    place = torch.arange(down.shape[-1], device=down.device)
    fresh = torch.ones_like(down, dtype=torch.bool)
    fresh[..., 1:] = down[..., :-1] - down[..., 1:] > slack[..., :-1]
    head = (place * fresh).cummax(-1).values
    step = ((down.gather(-1, head) - down) / (SPAN * slack.gather(-1, head))).floor()
    fresh[..., 1:].logical_or_(step[..., 1:] != step[..., :-1])
    run = order.scatter(-1, order, fresh.cumsum(-1))
    return run.argsort(dim=-1, stable=True)


def first_of_best(values: torch.Tensor, size: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Place of the first of the highest `values` `[..., visual]`, `[..., 1]`; what `rounding` takes from it ties.

    Args:
        values: in the dtype they were worked out in.
        size: of the numbers that values are differences of, 1 for cosines; for all, or for each.

    >>> first_of_best(torch.tensor([[1.0, 2.9999999, 3.0]])).tolist()
    [[1]]
    """
    best = values.amax(-1, keepdim=True)
    return (values + rounding(values.dtype) * size >= best).byte().argmax(-1, keepdim=True)
