"""VisPruner: the important patches, and of the rest the diverse ones."""

from dataclasses import field

import torch

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.similarity import drop_duplicates
from seeless.ops.ties import ranking
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("vispruner")
class VisPruner(EntryStrategy):
    """Keep the patches with the highest [CLS] attention, then thin the rest until no near-duplicates remain.

    Formula: int(T * `important_ratio`) patches are chosen as FasterVLM does; the others, in descending order of
    attention, are thinned by cosine similarity of the tower's features, eight at a time
    (`ops.similarity.drop_duplicates`).
    Signal: attention of the tower's class token, and the tower's features; on towers without one the mean attention a
    patch receives, as in PriorTR's port to Qwen3-VL.
    Paper: Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs",
    ICCV 2025, arXiv 2412.01818v2, section 3.
    Original: Theia-4869/VisPruner, Apache-2.0.

    The budget holds for every crop; a share is rounded. Positions are contiguous (kept on M-RoPE). Reported scores are
    the attention. Of N tokens N - T leave by thinning, in (N - T) / 8 turns, one after the other.

    Deviations: none known on LLaVA. On M-RoPE positions are kept, where the original knows only contiguous ones.

    Args:
        important_ratio: share of the budget chosen by importance, in [0, 1].
        as_released: order the survivors of a thinning step by "descending" similarity, as the authors' code does
            (True), or "ascending", as PriorTR's port does (False).
    """

    important_ratio: float = 0.5
    as_released: bool = True
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2412.01818v2"
    rounding = round
    tower = ("attention", "features")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important_ratio <= 1:
            raise BudgetError(f"important_ratio={self.important_ratio} is no share; give a number from 0 to 1")
        if self.threshold is not None:
            raise BudgetError("vispruner chooses partly by diversity, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        scores = ctx.vision_attention().mean(1)
        order = ranking(scores)
        important = int(ctx.n_keep * self.important_ratio)
        diverse = drop_duplicates(
            ctx.vision_features(), order[:, important:], ctx.n_keep - important, ascending=not self.as_released
        )
        return Keep.indices(torch.cat([order[:, :important], diverse], 1), scores.shape[1], scores)
