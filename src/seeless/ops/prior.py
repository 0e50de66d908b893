"""Attention corrected by what is looked at without a question."""

from typing import Literal

import torch

EPSILON = 1e-10


def prior_corrected(posterior: torch.Tensor, prior: torch.Tensor, heads: Literal["mean", "max"]) -> torch.Tensor:
    """`P ln((P + e) / (Q + e))`, e = 1e-10, with P and Q reduced over heads and normalised over the visual tokens.

    PriorTR (arXiv 2606.24156). A vector divided by its sum plus e is what "normalised" means here, so an attention of
    zero everywhere stays zero.

    Args:
        posterior, prior: `[units, heads, visual]`, P and Q of every head.
        heads: "mean" or "max" over heads, each of the two on its own, before they are normalised.

    Returns:
        `[units, visual]`.
    """
    both = torch.stack([posterior, prior])
    reduced = both.mean(2) if heads == "mean" else both.amax(2)
    p, q = reduced / (reduced.sum(-1, keepdim=True) + EPSILON)
    return p * ((p + EPSILON) / (q + EPSILON)).log()
