"""Cosine similarities and the removal of near-duplicates."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import ranking


def drop_duplicates(
    features: torch.Tensor, order: torch.Tensor, count: int, step: int = 8, ascending: bool = False
) -> torch.Tensor:
    """Thin a list of tokens to `count`, at each turn removing up to `step` that most resemble another.

    The list is split by alternation into a and b. The tokens of a that are most similar (cosine) to any of b leave;
    the rest of a, in descending order of that similarity, followed by b, is the next list (VisPruner, ICCV 2025,
    arXiv 2412.01818v2, section 3.3). Odd lists give a the extra token, and never more than all of a leaves at once.

    Args:
        features: `[units, visual, dim]`.
        order: `[units, listed]`, token indices; their order decides the pairing.
        count: how many to leave, 0 <= count <= listed.
        step: largest number removed at a time.
        ascending: put the survivors of a in ascending order of similarity instead.

    Returns:
        `[units, count]` token indices.
    """
    if count == 0:
        return order[:, :0]
    normalized = F.normalize(features.double(), dim=-1)  # near ties would change all later pairs
    while (listed := order.shape[1]) > count:
        a, b = order[:, 0::2], order[:, 1::2]
        removed = min(step, listed - count, a.shape[1])
        of_a, of_b = (normalized.gather(1, x[..., None].expand(-1, -1, features.shape[-1])) for x in (a, b))
        nearest = (of_a @ of_b.transpose(1, 2)).amax(2)
        ranked = ranking(nearest, size=1)[:, removed:]
        if ascending:
            ranked = ranked.flip(1)
        order = torch.cat([a.gather(1, ranked), b], dim=1)
    return order
