"""PyramidDrop: drop in several stages, more the deeper."""

from dataclasses import field

import torch

from seeless.budget import Budget
from seeless.context import Context, Queries
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.registry import register
from seeless.strategy import LayerStrategy


@register("pyramiddrop")
class PyramidDrop(LayerStrategy):
    """At each stage keep the tokens the last instruction token is about to look at.

    Formula: score_j = mean over heads of the attention of the last token in the *coming* layer, computed from the
    stage's hidden states with that layer's norm and projections.
    Signal: attention of the last prompt token in the decoder layer after the cut.
    Paper: Xing et al., "PyramidDrop", CVPR 2025, arXiv 2410.17247, section 3.2.
    Original: Cooperx521/PyramidDrop, MIT.

    Shares are of the original tokens and floored. Positions are renumbered at every stage (kept on M-RoPE), earlier
    layers keep their cache. In training with labels the mean over all tokens right before an answer takes the place of
    the last token, as in the authors' training code; a prompt without an answer is left as it is.

    Deviations: none in what is kept. Nothing of the ranking is differentiated.

    Args:
        layer: one layer per stage; by default a quarter, a half and three quarters of the depth (8, 16, 24 of 32).
    """

    keep: Budget | list[Budget] = field(default_factory=lambda: [0.5, 0.25, 0.125])
    layer: int | list[int] | None = None  # type: ignore[assignment]
    own_positions = "renumber"
    adaptive = True  # in training a row without an answer keeps all
    paper = "arXiv 2410.17247"
    tower = ()

    def schedule(self) -> tuple[list[Budget], list[int]]:
        if self.layer is not None:
            return super().schedule()
        keeps = self.keep if isinstance(self.keep, list) else [self.keep]
        if len(keeps) != 3:
            raise BudgetError(f"keep={self.keep} gives {len(keeps)} budgets; name as many layers with layer=")
        return keeps, [1, 2, 3]

    def layers(self, depth: int) -> list[int]:
        if self.layer is not None:
            return super().layers(depth)
        layers = [max(1, depth * quarter // 4) for quarter in (1, 2, 3)]
        if len(set(layers)) < 3:
            raise BudgetError(f"a decoder of {depth} layers has no room for three stages; name them with layer=")
        return layers

    def select(self, ctx: Context) -> Keep:
        if ctx.answers == 0:
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool), count=ctx.index.shape[1])
        return super().select(ctx)

    def score(self, ctx: Context) -> torch.Tensor:
        queries: Queries = "last" if ctx.answers is None else "answers"
        return ctx.attention(queries, layer=ctx.layer, average=True).mean((1, 2))
