"""Trees of tokens that resemble each other from one frame of a video to the next."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best
from seeless.ops.topk import ranks_within
from seeless.ops.windows import lengths


def time_trees(
    x: torch.Tensor, apart: torch.Tensor, first: torch.Tensor, similarity: float, budget: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let tokens join the most similar one of the frame before, within their segment.

    Tree-based spatiotemporal merging, FlashVID, arXiv 2602.08024: a token joins if the cosine is above `similarity`; of
    a segment the most similar pairs, as many as leave `budget`
    tokens a frame. Ties go to the lower place.

    Args:
        x: `[units, frames, size, dim]`.
        apart: `[units, frames, size]` bool, tokens that join none and that none joins.
        first: `[units, frames]`, the first frame of every frame's segment (`ops.windows`).

    Returns:
        `root` and `children`, `[units, frames * size]`: the place of the token at which each one's tree begins, its own
        if it joins none, and how many tokens join each one directly.

    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.1, 1.0], [1.0, -1.0]], [[0.2, 1.0], [1.0, -1.0]]]])
    >>> apart = torch.zeros(1, 3, 2, dtype=torch.bool)
    >>> [found.tolist() for found in time_trees(x, apart, torch.zeros(1, 3).long(), 0.8, 1)]
    [[[0, 1, 1, 3, 1, 3]], [[0, 1, 1, 1, 0, 0]]]
    """
    units, frames, size = apart.shape
    own = torch.arange(frames * size, device=x.device).view(frames, size).expand(units, -1, -1)
    direction = F.normalize(x, dim=-1)
    best, parent = [torch.full_like(x[:, 0, :, 0], -1.0)], [own[:, 0]]
    for frame in range(1, frames):
        likeness = direction[:, frame] @ direction[:, frame - 1].transpose(1, 2)
        likeness = likeness.masked_fill(apart[:, frame - 1, None], -1.0)
        best.append(likeness.amax(2))
        parent.append(first_of_best(likeness)[..., 0])
    begins = (first == torch.arange(frames, device=x.device))[..., None]
    closest = torch.stack(best, 1).masked_fill(apart | begins, -1.0)
    rank = ranks_within(closest.flatten(1), first.repeat_interleave(size, 1), size=1).view_as(closest)
    joins = (closest > similarity) & (rank < (lengths(first) * (size - budget))[..., None])
    root, children = [own[:, 0]], torch.zeros_like(own).flatten(1)
    for frame in range(1, frames):
        root.append(torch.where(joins[:, frame], root[-1].gather(1, parent[frame]), own[:, frame]))
        above = parent[frame] + (frame - 1) * size
        children = children.scatter_add(1, above, joins[:, frame].long())
    return torch.stack(root, 1).flatten(1), children
