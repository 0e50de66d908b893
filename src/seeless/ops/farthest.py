"""A subset whose members lie as far from each other as possible."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best

DISTANCES_AT_ONCE = 16_777_216


def farthest_points(features: torch.Tensor, count: int) -> torch.Tensor:
    """Choose `count` tokens one after another, each as far as possible (1 - cosine) from those chosen before.

    The first is the one farthest from its nearest neighbour; then always the one whose nearest chosen token is
    farthest away (max-min diversity, DivPrune, CVPR 2025, arXiv 2503.02175). Ties, distances that differ by
    rounding at most, go to the lower index, and no token is chosen twice, however many are equal.

    Args:
        features: `[units, visual, dim]`, any dtype; distances are float32 (float64 stays).
        count: 1 <= count <= visual.

    Returns:
        `[units, count]` token indices in the order of choice.

    >>> farthest_points(torch.tensor([[[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [1.0, -0.1]]]), 3).tolist()
    [[2, 3, 0]]
    """
    normalized = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    distance = 1 - normalized @ normalized.transpose(1, 2)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    nearest = distance.amin(2)
    chosen = [first_of_best(nearest)]
    nearest = torch.full_like(nearest, torch.inf)
    for _ in range(count - 1):
        nearest = nearest.minimum(distance.gather(1, chosen[-1][..., None].expand(-1, -1, distance.shape[2]))[:, 0])
        nearest = nearest.scatter(1, chosen[-1], -torch.inf)
        chosen.append(first_of_best(nearest))
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
    at_once = max(1, DISTANCES_AT_ONCE // features.shape[1] ** 2)
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
