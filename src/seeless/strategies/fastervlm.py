"""FasterVLM: keep what the vision tower's class token looks at."""

from dataclasses import field

import torch

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("fastervlm")
class FasterVLM(EntryStrategy):
    """Keep the patches with the highest [CLS] attention, before the language model.

    Formula: score_j = mean over heads of the class token's attention in the tower layer whose output the projector
    takes.
    Signal: attention of the tower's class token; on towers without one the mean attention a patch receives, as in
    PriorTR's port to Qwen3-VL.
    Paper: Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning", arXiv 2412.01818v1,
    section 3.2.
    Original: Theia-4869/FasterVLM, Apache-2.0.

    The budget holds for every crop; a share is rounded. Positions are contiguous (kept on M-RoPE).

    Deviations: patches of a tile that the model cuts away as padding are not ranked, unless `padding` asks for it.
    Newline tokens of LLaVA-NeXT are dropped, as in the released code; `newlines=True` keeps them.

    Args:
        padding: rank all patches of a tile, those too that the model cuts away as padding, as the released code does;
            then fewer tokens than the budget may stay, at least one.
    """

    padding: bool = False
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2412.01818v1"
    rounding = round
    tower = ("attention",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding and (self.scope != "crop" or self.threshold is not None):
            raise BudgetError("padding=True ranks whole crops by count; use it with scope='crop' and no threshold")

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return self.padding  # a budget of whole crops, of which some is cut away

    def score(self, ctx: Context) -> torch.Tensor:
        return ctx.vision_attention().mean(1)

    def select(self, ctx: Context) -> Keep:
        if not self.padding:
            return super().select(ctx)
        whole = ctx.crop_attention().mean(1)
        kept = top_mask(whole, self.count(0, whole.shape[1]))
        own, scores = kept.gather(1, ctx.patch), whole.gather(1, ctx.patch)
        return Keep(own | (top_mask(scores, 1) & ~own.any(1, keepdim=True)), scores)
