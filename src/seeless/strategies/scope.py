"""SCOPE: keep patches that are looked at and together cover the picture."""

import math
from dataclasses import field
from typing import Literal

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.coverage import greedy_cover
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("scope")
class SCOPE(EntryStrategy):
    """Keep patches that are looked at and together resemble all others.

    Formula: s_ij = cosine of the tower's features of patches i and j, a_j = sum over heads of the class token's
    attention to j. Nothing is covered at first, c_i = 0; then count times the token with the highest gain_j * a_j^alpha
    stays, gain_j = sum_i max(0, s_ij - c_i), and c_i becomes max(c_i, s_ij) (`ops.coverage.greedy_cover`). With
    combined="add" it is the highest gain_j + a_j^alpha.
    Signal: the features that the projector takes in, and attention of the tower's class token in the layer that made
    them; on towers without one the attention a patch receives on average.
    Paper: "SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs", NeurIPS 2025, arXiv
    2510.24214.
    Original: kinredon/SCOPE, without a licence file; written from a description of its behaviour.

    The budget holds for every crop; a share is floored. Positions are contiguous. Reported scores are a. Dissimilar
    patches (negative cosines) never cover each other. Of N patches the T choices come one after the other, each of
    which looks at all N^2 cosines.

    Deviations: none known on LLaVA. Where the projector takes in several patches at once, features are what it gives,
    and attention is the mean over the patches of a token.

    Args:
        alpha: exponent of the attention, at least 0.
        combined: whether gain and attention are multiplied ("product") or added ("add").
    """

    alpha: float = 1.0
    combined: Literal["product", "add"] = "product"
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2510.24214"
    tower = ("attention", "features")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha < math.inf:
            raise BudgetError(f"alpha={self.alpha!r} is not possible; give 0 or a positive number")
        if self.threshold is not None:
            raise BudgetError("scope chooses by what tokens cover together, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        attention = ctx.vision_attention().sum(1)
        features = ctx.vision_features()
        features = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
        power = attention.to(features) ** self.alpha
        by_product = self.combined == "product"
        chosen = greedy_cover(
            features @ features.transpose(1, 2),
            ctx.n_keep,
            factor=power if by_product else None,
            bonus=None if by_product else power,
        )
        return Keep.indices(chosen, attention.shape[1], attention)
