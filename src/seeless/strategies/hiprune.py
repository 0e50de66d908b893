"""HiPrune: what a shallow layer of the tower looks at, what lies around it, and what a deep layer looks at."""

from dataclasses import field

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.grids import around
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope
from seeless.tower import Look, Tower


@register("hiprune")
class HiPrune(EntryStrategy):
    """Keep anchors of a shallow tower layer with their neighbours, and fill up with what a deep layer looks at.

    Formula: m_j = attention that patch j receives in a tower layer, mean over heads and all rows, a class token's
    included. The round(T alpha / 5) patches with the highest m of the shallow layer are anchors; they and their four
    neighbours on the grid stay, and of the rest those with the highest m of the deep layer, until there are T.
    Signal: attention of two tower layers, what every patch receives there.
    Paper: "HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models", arXiv
    2508.00553.
    Original: Danielement321/HiPrune, MIT.

    The deep layer is the one that made the features. The budget holds for every crop; a share is rounded. Positions are
    contiguous (kept on M-RoPE). Reported scores are m of the deep layer. With the default alpha and 64 tokens there is
    one anchor.

    Deviations: the grid is that of every picture; the released code takes 24 patches a row, or the first image's. A
    crop whose tokens fill no grid (tiles that were resampled) counts as one row. No more anchors are taken than fit
    with four neighbours each. In towers with attention windows the shallow layer is one that sees whole pictures, since
    attention of different windows cannot be compared.

    Args:
        alpha: share of the budget for anchors and neighbours, in [0, 1].
        layer: the shallow layer, from 0; by default the first that sees whole pictures from a third of the tower on (8
            of CLIP's 24, 15 of Qwen2.5-VL's 32).
        as_released: let neighbours wrap into the next or previous row, and end at the first and last patch, as the
            released code does; else there are none beyond the edges of the grid.
    """

    alpha: float = 0.1
    layer: int | None = None
    as_released: bool = True
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2508.00553"
    rounding = round
    tower = ("layers",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise BudgetError(f"alpha={self.alpha} is no share; give a number from 0 to 1")
        if self.layer is not None and self.layer < 0:
            raise BudgetError(f"layer={self.layer} is no layer of a vision tower; give 0 for the first, or more")
        if self.threshold is not None:
            raise BudgetError("hiprune fills a budget in steps, so it takes no threshold")

    def looks_into(self, tower: Tower) -> list[Look]:
        third = max(tower.first, tower.layers // 3)
        shallow = tower.whole_from(third) if self.layer is None else self.layer
        return [("all", shallow), ("all", tower.made)]

    def select(self, ctx: Context) -> Keep:
        shallow, deep = (ctx.vision_attention(layer, "all").mean(1) for _, layer in self.looks_into(ctx.tower))
        anchors = min(round(ctx.n_keep * self.alpha / 5), ctx.n_keep // 5)
        chosen = around(top_mask(shallow, anchors), ctx.grid or (1, 1, deep.shape[1]), self.as_released)
        return Keep(top_mask(deep + 2 * chosen, ctx.n_keep), deep, ctx.n_keep)  # attention is at most 1
