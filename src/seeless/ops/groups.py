"""Tokens in groups of one meaning each, and the few of every group that do not repeat each other."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best, ranking


def principal_groups(features: torch.Tensor, count: int) -> torch.Tensor:
    """The principal component on which each token weighs most, `[units, visual]`, numbered from the strongest.

    Components are of the transposed features: channels are the observations, tokens the variables; they go through a
    sigmoid first (PruneSID, arXiv 2603.09480). The decomposition is exact, in float64. Ties go to the stronger one.

    Args:
        features: `[units, visual, dim]`.
        count: of components; there are no more than tokens or channels.
    """
    x = features.double().sigmoid()
    x = x - x.mean(2, keepdim=True)
    count = min(count, *x.shape[1:])
    loadings = torch.linalg.eigh(x @ x.transpose(1, 2)).eigenvectors[..., -count:].flip(-1)
    return first_of_best(loadings.abs().float())[..., 0]


def not_repeating(features: torch.Tensor, group: torch.Tensor, order: torch.Tensor, limit: float) -> torch.Tensor:
    """The tokens that resemble no earlier one of their group that is itself among them, `[units, visual]` bool.

    Args:
        features: `[units, visual, dim]`.
        group: `[units, visual]`.
        order: `[units, visual]`, places from the first to the last.
        limit: times the mean cosine of two tokens of the unit, above which one resembles another.
    """
    x = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    like, visual = x @ x.transpose(1, 2), x.shape[1]
    own = like.diagonal(dim1=1, dim2=2).sum(1)
    mean = (like.sum((1, 2)) - own) / max(1, visual * (visual - 1))
    repeats = (like > (limit * mean)[:, None, None]) & (group[:, :, None] == group[:, None])
    ranked = repeats.gather(1, order[..., None].expand_as(repeats)).gather(2, order[:, None].expand_as(repeats))
    left = torch.ones_like(order, dtype=torch.bool)
    place = torch.arange(visual, device=order.device)
    for step in range(visual - 1):
        left = left & ~(ranked[:, step] & left[:, step : step + 1] & (place > step))
    return torch.zeros_like(left).scatter(1, order, left)


def shared_out(
    group: torch.Tensor, first: torch.Tensor, importance: torch.Tensor, count: int, most: int
) -> torch.Tensor:
    """`count` tokens of each unit, `[units, visual]` bool, of every group in proportion to its `first` tokens.

    Every group has one, and none more than `most` while others have any left. Proportional by the highest averages:
    after each token the next goes to the group with the highest number of first tokens / (tokens it has + 1). In a
    group the first tokens come before the others, each by importance.

    Args:
        group: `[units, visual]`; first: `[units, visual]` bool; importance: `[units, visual]`.
    """
    visual = group.shape[1]
    order = ranking(importance).gather(1, torch.arange(visual, device=group.device).expand_as(group))
    late = (~first).gather(1, order).byte().argsort(dim=1, stable=True)
    order = order.gather(1, late)
    ranked = group.gather(1, order)
    same = ranked[:, :, None] == ranked[:, None]
    earlier = same.tril(-1).sum(2)
    size = (same & first.gather(1, order)[:, None]).sum(2)
    worth = size.double() / (earlier + 1)
    worth = worth + 2.0 * visual * ((earlier == 0).double() - (earlier >= most).double())
    chosen = ranking(worth)[:, :count]
    return torch.zeros_like(first).scatter(1, order.gather(1, chosen), True)
