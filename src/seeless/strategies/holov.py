"""HoloV: keep the highlights of every part of the picture."""

import math
from dataclasses import field
from typing import Literal

import torch

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.chunks import chunk_sizes, share_out, similarity_spread
from seeless.ops.ties import ranking
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("holov")
class HoloV(EntryStrategy):
    """Share the budget among the parts of the picture, and keep what the tower looks at in each.

    Formula: the tokens are cut into contiguous chunks, which share the budget in proportion to their mean score =
    `attention_weight` * c + `weight` * v: c is the tower's attention (mean over heads), v how unevenly a token
    resembles the others of its chunk (`ops.chunks.similarity_spread` of the projected tokens), scaled to the mean size
    of the first term. Inside a chunk the tokens with the highest c stay, or those with the highest score (`within`).
    Signal: attention of the tower's class token (`ctx.vision_attention`), on towers without one the attention each
    token receives on average wherever that can be read; and the projected tokens.
    Paper: Zou et al., "Don't Just Chase 'Highlighted Tokens' in MLLMs: Revisiting Visual Holistic Context Retention",
    NeurIPS 2025, arXiv 2510.02912, section 4.1: equation 1 (similarity), 2 (its spread), 3 (score), 4 (shares of the
    chunks), 5 (choice inside a chunk).
    Original: obananas/HoloV, Apache-2.0.

    A share is floored. Positions are contiguous. Reported scores are c. The budget holds for every crop, since
    LLaVA-NeXT's newlines have no c; on LLaVA-1.5 a crop is the image.

    Deviations: by default c decides inside a chunk, as in the released code; equation 5 of the paper has the score
    there, which is within="score". The paper's refetching (section 4.1.1, appendix D) is not here. The released code
    fills up with zero vectors where a chunk's part exceeds its tokens; here that surplus goes to the chunks of the
    highest score that have room, so exactly the budget is kept.

    Args:
        chunks: how many parts, at most one per token.
        weight: of the spread v.
        attention_weight: of the attention c.
        within: what decides inside a chunk, "attention" as released, or "score", equation 5.
    """

    chunks: int = 16
    weight: float = 0.09
    attention_weight: float = 1000.0
    within: Literal["attention", "score"] = "attention"
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2510.02912"
    tower = ("attention",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunks < 1:
            raise BudgetError(f"chunks={self.chunks!r} is not possible; give a whole number of at least 1")
        for name in ("weight", "attention_weight"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise BudgetError(f"{name}={value!r} is not possible; give 0 or a positive number")
        if self.threshold is not None:
            raise BudgetError("holov shares its budget among parts of the picture, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        attention = ctx.vision_attention().mean(1)
        tokens = ctx.embeds.to(attention.device)
        sizes = chunk_sizes(attention.shape[1], self.chunks)
        parts = attention.split(sizes, 1)
        scores = [self._scores(*part) for part in zip(parts, tokens.split(sizes, 1), strict=True)]
        quota = share_out(torch.stack([part.mean(1) for part in scores], 1), sizes, ctx.n_keep)
        ranks = [ranking(part).argsort(dim=1) for part in (parts if self.within == "attention" else scores)]
        mask = torch.cat([rank < quota[:, chunk, None] for chunk, rank in enumerate(ranks)], 1)
        return Keep(mask, attention, ctx.n_keep)

    def _scores(self, attention: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Of the tokens of a chunk, `[units, tokens]`."""
        looked_at = self.attention_weight * attention
        spread = similarity_spread(tokens)
        size = spread.abs().mean(1, keepdim=True).clamp(min=1e-12)
        scaled = spread / size * looked_at.abs().mean(1, keepdim=True)
        return looked_at + self.weight * scaled
