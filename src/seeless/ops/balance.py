"""Subsets that balance how much tokens matter, how much they differ, and how much they stand for."""

from typing import Literal

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best


def greedy_balance(
    relevance: torch.Tensor,
    features: torch.Tensor,
    count: int,
    diversity: float,
    coverage: float,
    by: Literal["mean", "minmax"],
) -> torch.Tensor:
    """Choose `count` tokens one after another by relevance, diversity and coverage, scaled anew at every step.

    The first is the most relevant. Then, S being chosen, score_i = r_i + diversity * d_i + coverage * c_i, with
    d_i = 1 - max over j in S of s_ij and c_i = sum over j not in S of max(0, s_ij - max over k in S of s_jk), s the
    cosines; each of the three is scaled over the tokens that are left: divided by its mean, or "minmax" to 0 ... 1
    (what is the same for all is then 0, a mean of 0 divides by 1). TOPS, arXiv 2606.27161, section 4.1.
    Ties, within what rounding makes of the scores, go to the lower index.

    Args:
        relevance: `[units, visual]`.
        features: `[units, visual, dim]`; worked out in float32, float64 stays.
        count: 1 <= count <= visual.

    Returns:
        `[units, count]` token indices in the order of choice.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    x = F.normalize(features.to(wide), dim=-1)
    like, relevance = x @ x.transpose(1, 2), relevance.to(x)
    left = torch.ones_like(relevance, dtype=torch.bool)
    nearest = torch.full_like(relevance, -torch.inf)  # of every token, the highest cosine to one that was chosen
    chosen = [first_of_best(relevance, relevance.abs().amax(1, keepdim=True))]
    for _ in range(count - 1):
        left = left.scatter(1, chosen[-1], False)
        nearest = nearest.maximum(like.gather(1, chosen[-1][..., None].expand(-1, -1, like.shape[2]))[:, 0])
        gains = (like - nearest[:, None]).clamp_(min=0).masked_fill_(~left[:, None], 0).sum(2)
        parts = (relevance, diversity * _scaled(1 - nearest, left, by), coverage * _scaled(gains, left, by))
        scores = _scaled(parts[0], left, by) + parts[1] + parts[2]
        size = scores.abs().masked_fill(~left, 0).amax(1, keepdim=True)
        chosen.append(first_of_best(scores.masked_fill(~left, -torch.inf), size))
    return torch.cat(chosen, 1)


def _scaled(values: torch.Tensor, left: torch.Tensor, by: str) -> torch.Tensor:
    if by == "mean":
        mean = values.masked_fill(~left, 0).sum(1, keepdim=True) / left.sum(1, keepdim=True)
        return values / torch.where(mean == 0, 1, mean)
    low = values.masked_fill(~left, torch.inf).amin(1, keepdim=True)
    span = values.masked_fill(~left, -torch.inf).amax(1, keepdim=True) - low
    return (values - low) / torch.where(span > 0, span, 1)
