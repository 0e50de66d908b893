"""DivPrune: keep tokens that differ."""

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.farthest import farthest_points
from seeless.registry import register
from seeless.strategy import EntryStrategy


@register("divprune")
class DivPrune(EntryStrategy):
    """Keep tokens that lie as far from each other as possible, before the language model.

    Formula: max-min diversity. The first token is the one farthest from its nearest neighbour; then always the highest
    score_j = min over the chosen i of 1 - cos(x_i, x_j), x the projected embeddings (`ops.farthest`).
    Signal: the projected embeddings alone, neither the question nor any attention, so it works with every tower.
    Paper: Alvar et al., "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models", CVPR 2025, arXiv
    2503.02175, problem: section 3.2, equation 2; choice: section 3.3, equations 3 and 4, algorithm 1.
    Original: vbdi/divprune, CC BY-NC 4.0.

    A share is rounded half to even. Positions are contiguous. All tokens of an image are candidates, LLaVA-NeXT's
    newlines too. Of N tokens all N^2 distances are computed once; T choices follow, one after the other, each of which
    looks at N.

    Deviations: the released code may choose a token twice where several are equal; here exactly the budget is kept.
    """

    paper = "arXiv 2503.02175"
    rounding = round
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None:
            raise BudgetError("divprune chooses by diversity, not by a score, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        embeds = ctx.embeds
        return Keep.indices(farthest_points(embeds, ctx.n_keep), embeds.shape[1])
