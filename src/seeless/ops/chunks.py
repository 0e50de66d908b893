"""A sequence of tokens in contiguous chunks: what each chunk holds, and how places are shared among them."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import ranking, rounding

EPSILON = 1e-6


def chunk_sizes(visual: int, chunks: int) -> list[int]:
    """Sizes of at most `chunks` contiguous chunks of `visual` tokens; the first ones are one longer.

    >>> chunk_sizes(10, 4), chunk_sizes(2, 4)
    ([3, 3, 2, 2], [1, 1])
    """
    chunks = min(chunks, visual)
    return [visual // chunks + (i < visual % chunks) for i in range(chunks)]


def similarity_spread(features: torch.Tensor) -> torch.Tensor:
    """How unevenly each token resembles the other tokens of its chunk, `[units, size]`.

    v_i = sum_j (S_ij - mu_i)^2 / (n - 1), mu_i = sum_j S_ij / (n - 1), S the cosines with a zero diagonal, which is
    part of both sums (HoloV, NeurIPS 2025, arXiv 2510.02912). A chunk of one token gives 0.

    Args:
        features: `[units, size, dim]`.
    """
    others = max(1, features.shape[1] - 1)
    normalized = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1, eps=EPSILON)
    similarity = normalized @ normalized.transpose(1, 2)
    similarity.diagonal(dim1=1, dim2=2).zero_()
    mean = similarity.sum(2, keepdim=True) / others
    return (similarity - mean).square().sum(2) / others


def share_out(weight: torch.Tensor, sizes: list[int], count: int) -> torch.Tensor:
    """How many of `count` places every chunk gets, `[units, chunks]`.

    In proportion to `weight` `[units, chunks]`, floored, and never more than a chunk holds. What is left goes to the
    chunks of the highest weight that have room, one each, again and again until nothing is left. Weights that differ by
    rounding alone tie (`ranking`), and a share that rounding alone may have made whole is floored to the number below.

    Args:
        sizes: tokens of every chunk.
        count: at most the sum of `sizes`.

    >>> share_out(torch.tensor([[8.0, 1.0, 0.5, 0.5]]), [3, 3, 3, 3], 10).tolist()
    [[3, 3, 2, 2]]
    """
    weight = torch.nan_to_num(weight.double())
    room = torch.tensor(sizes).to(weight.device, non_blocking=True)
    share = weight / (weight.sum(1, keepdim=True) + EPSILON)
    quota = (share * count * (1 - rounding(torch.float32))).floor().long().minimum(room)
    left = count - quota.sum(1, keepdim=True)
    # One ticket for each free place: those of a first round in the order of the weights, then of a second, and so on.
    rank = ranking(weight.float()).argsort(dim=1)
    turn = torch.arange(max(sizes), device=weight.device)
    ticket = (turn * len(sizes) + rank[..., None]).masked_fill(
        turn >= (room - quota)[..., None], len(sizes) * max(sizes)
    )
    drawn = ticket.flatten(1).argsort(dim=1, stable=True).argsort(dim=1) < left
    return quota + drawn.view(ticket.shape).sum(2)
