"""A subset whose members lie as far from each other as possible."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best


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
