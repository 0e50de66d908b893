"""An anchor of relevant tokens that grows while it brings news, and what is added around it."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best


def anchor_size(
    features: torch.Tensor, order: torch.Tensor, least: int, most: int, novelty: float, patience: int
) -> torch.Tensor:
    """How many of a ranking are the anchor, `[units]`.

    The first `least` are. Of the next, up to `most`, a token brings news if 1 - its highest cosine to any of those is
    above `novelty`; the anchor ends with the `patience`-th that does, else at `most`.

    Args:
        features: `[units, visual, dim]`.
        order: `[units, visual]`, places in descending order of relevance.
    """
    x = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    ranked = x.gather(1, order[:, :most, None].expand(-1, -1, x.shape[-1]))
    first, later = ranked.split([least, most - least], 1)
    if most == least:
        return torch.full((len(order),), least, device=order.device)
    news = 1 - (later @ first.transpose(1, 2)).amax(2) > novelty
    before_the_end = (news.cumsum(1) < patience).sum(1)
    return least + (before_the_end + 1).clamp(max=most - least)


def expanded(features: torch.Tensor, importance: torch.Tensor, start: torch.Tensor, count: int) -> torch.Tensor:
    """Some tokens, and always the one with the highest importance * distance more, until there are `count`.

    Distance is the least cosine distance to a token that is there, at most 1; importance below 0 counts as 0. Ties,
    within what rounding makes of these, go to the lower index.

    Args:
        features: `[units, visual, dim]`; importance: `[units, visual]`.
        start: `[units, visual]` bool, at least one of each unit, and at most `count`.

    Returns:
        `[units, visual]` bool.
    """
    x = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    distance, importance = 1 - x @ x.transpose(1, 2), importance.to(x).clamp(min=0)
    nearest = distance.masked_fill(~start[:, None], torch.inf).amin(2).clamp(max=1)
    chosen, left = start, count - start.sum(1, keepdim=True)
    for step in range(count - 1):  # units of a larger start are full earlier
        worth = (importance * nearest).masked_fill(chosen, -torch.inf)
        best = first_of_best(worth, importance)
        chosen = chosen | (torch.zeros_like(chosen).scatter(1, best, True) & (step < left))
        row = distance.gather(1, best[..., None].expand(-1, -1, distance.shape[2]))[:, 0]
        nearest = torch.where(step < left, nearest.minimum(row), nearest)
    return chosen
