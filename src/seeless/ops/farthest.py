"""A subset whose members lie as far from each other as possible."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best

TABLE = 67_108_864  # most distances that are held at once, 256 MiB in float32
PIECE = 16_777_216  # most that are worked on at once


def farthest_points(features: torch.Tensor, count: int, table: int = TABLE) -> torch.Tensor:
    """Choose `count` tokens one after another, each as far as possible (1 - cosine) from those chosen before.

    The first is the one farthest from its nearest neighbour; then always the one whose nearest chosen token is
    farthest away (max-min diversity, DivPrune, CVPR 2025, arXiv 2503.02175). Ties, distances that differ by
    rounding at most, go to the lower index, and no token is chosen twice, however many are equal.

    There are `count` choices, one after the other, each of which looks at all tokens. All distances are computed once;
    where they do not fit into `table`, those to the token chosen last are, at every choice.

    Args:
        features: `[units, visual, dim]`, any dtype; distances are float32 (float64 stays).
        count: 1 <= count <= visual.
        table: most distances that are held at once.

    Returns:
        `[units, count]` token indices in the order of choice.

    >>> farthest_points(torch.tensor([[[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [1.0, -0.1]]]), 3).tolist()
    [[2, 3, 0]]
    """
    normalized = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    units, visual, _ = normalized.shape
    whole = units * visual**2 <= table
    distances: list[torch.Tensor] = []
    nearest = []
    for some in torch.arange(visual, device=features.device).split(visual if whole else max(1, PIECE // visual)):
        own = _distances(normalized[:, some], normalized)
        itself = some[None, :, None].expand(units, -1, -1)
        nearest.append(own.scatter_(2, itself, torch.inf).amin(2))
        if whole:
            distances.append(own.scatter_(2, itself, -torch.inf))
    first = torch.arange(units, device=features.device) * visual
    chosen = [first_of_best(torch.cat(nearest, 1))]
    closest = torch.full_like(normalized[..., 0], torch.inf)
    for _ in range(count - 1):
        last = chosen[-1]
        if whole:
            row = distances[0].flatten(0, 1).index_select(0, last[:, 0] + first)
        else:
            own = normalized.flatten(0, 1).index_select(0, last[:, 0] + first)[:, None]
            row = _distances(own, normalized)[:, 0].scatter_(1, last, -torch.inf)
        closest = closest.minimum(row)
        chosen.append(first_of_best(closest))
    return torch.cat(chosen, 1)


def weighted_farthest(features: torch.Tensor, weight: torch.Tensor, count: int) -> torch.Tensor:
    """Choose `count` tokens of each set one after another, each far from those chosen before, and of high weight.

    d_ij = (1 - cos(x_i, x_j)) weight_j. The first token has the highest second smallest d_ij over all i (the smallest
    is its own, 0); then always the one of the highest min over chosen i of d_ij (FlashVID, arXiv 2602.08024, ADTS).
    Ties as above; weights may be negative.

    Args:
        features: `[sets, tokens, dim]`; weight: `[sets, tokens]`.
        count: 1 <= count <= tokens.

    Returns:
        `[sets, tokens]` bool.

    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    >>> weighted_farthest(x, torch.tensor([[1.0, 1.0, 2.0]]), 2).tolist()
    [[True, False, True]]
    """
    direction = F.normalize(features, dim=-1)
    at_once = max(1, PIECE // features.shape[1] ** 2)
    parts = zip(direction.split(at_once), weight.split(at_once), strict=True)
    return torch.cat([_weighted(*part, count) for part in parts])


def _weighted(direction: torch.Tensor, weight: torch.Tensor, count: int) -> torch.Tensor:
    distance = (1 - direction @ direction.transpose(1, 2)) * weight[:, None]
    tokens, size = weight.shape[1], weight.abs()
    nearest = distance.topk(min(2, tokens), dim=1, largest=False).values[:, -1]
    chosen = torch.zeros_like(weight, dtype=torch.bool)
    for step in range(count):
        best = first_of_best(nearest.masked_fill(chosen, -torch.inf), size)
        chosen = chosen.scatter(1, best, True)
        row = distance.gather(1, best[..., None].expand(-1, 1, tokens))[:, 0]
        nearest = torch.minimum(nearest, row) if step else row
    return chosen


def _distances(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`[units, some, others]` of vectors of length 1."""
    return (some @ others.transpose(1, 2)).neg_().add_(1)
