"""FasterVLM: keep what the vision tower's class token looks at."""

from dataclasses import field

import torch

from seeless.context import Context
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("fastervlm")
class FasterVLM(EntryStrategy):
    """Keep the patches with the highest [CLS] attention, before the language model.

    score_j = mean over heads of the class token's attention in the tower layer whose output the projector takes.
    Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning", arXiv 2412.01818v1, section
    3.2. The budget holds for every crop; a share is rounded. Positions are contiguous. On LLaVA-NeXT the released code
    drops the newline tokens; `newlines=True` keeps them.
    """

    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2412.01818v1"
    rounding = round

    def score(self, ctx: Context) -> torch.Tensor:
        return ctx.vision_attention().mean(1)
