"""TOPS: relevant, different and standing for others, at the entry and before two decoder layers."""

import math
from dataclasses import field
from typing import ClassVar, Literal

from seeless.budget import Budget
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.balance import greedy_balance
from seeless.registry import register
from seeless.strategy import LayerStrategy, Scope

SHARES = (2.0, 1.0, 0.25)


@register("tops")
class TOPS(LayerStrategy):
    """Keep tokens that matter, differ from each other and stand for the rest, in three stages by one rule.

    Formula: the first token is the one with the highest r; then always the highest
    score_i = r_i + `diversity` * d_i + `coverage` * c_i, d_i = 1 - max over the chosen j of s_ij, c_i = sum over the j
    that are left of max(0, s_ij - max over the chosen k of s_jk), s the cosines, each of r, d and c divided at every
    step by its mean over the tokens that are left (`ops.balance.greedy_balance`).
    Signal: at the entry r is the attention of the tower's class token (mean over heads; on towers without one what a
    patch receives) and s is of the projected tokens; before a decoder layer r is the attention of all text after the
    images in the layer before (mean over heads and rows), and s is of the hidden states.
    Paper: "TOPS", arXiv 2606.27161, section 4.1, algorithms 1 and 2, table 7 for the weights.
    Original: no code was found.

    A number T stands for 2 T, T and T // 4 tokens at the three stages (64 for 128, 64, 16: a layer average of 76 on 32
    layers), a share r for 2 r, r and r / 4, at most all, floored; 1.0 keeps everything. Three budgets, or as many as
    `layer` names, are taken as they stand: the paper's settings of Qwen2.5-VL are keep=[512, 281, 77] or [256, 139, 39]
    with layer=[0, 12, 16], coverage=0.4. The budget holds for every crop. Positions are renumbered. Reported scores are
    r.

    Deviations: the text of the paper scales by minimum and maximum, its algorithms by the mean; the latter is done
    here, see `scaled`. Which text tokens rate is not said; all of them do, which its ablation finds as good.

    Args:
        layer: one layer per stage, 0 being the entry; by default 0, three eighths and three quarters of the depth (12
            and 24 of 32, 15 and 30 of 40).
        diversity: weight of d, the paper's alpha.
        coverage: weight of c, the paper's lambda; 0.2 to 1 by model and budget there.
        scaled: r, d and c by their "mean", or "minmax" to 0 ... 1.
    """

    layer: int | list[int] | None = None  # type: ignore[assignment]
    diversity: float = 0.5
    coverage: float = 0.5
    scaled: Literal["mean", "minmax"] = "mean"
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2606.27161"
    lowest_layer: ClassVar[int] = 0
    own_positions = "renumber"
    tower = ("attention",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("diversity", "coverage"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BudgetError(f"{name}={getattr(self, name)!r} is not possible; give 0 or a positive number")
        if self.threshold is not None:
            raise BudgetError("tops chooses by more than a score, so it takes no threshold")

    def schedule(self) -> tuple[list[Budget], list[int]]:
        budgets = self._budgets()
        if self.layer is None and len(budgets) != 3:
            raise BudgetError(f"keep={self.keep} gives {len(budgets)} budgets; name as many layers with layer=")
        layers = [0, 1, 2] if self.layer is None else super().schedule()[1]
        if not isinstance(self.keep, list) and isinstance(self.layer, list) and len(layers) not in (1, 3):
            raise BudgetError(
                f"keep={self.keep} stands for three stages (or one), but layer={layers} names {len(layers)}; "
                "give keep= one budget per layer"
            )
        return budgets, layers

    def layers(self, depth: int) -> list[int]:
        if self.layer is not None:
            return super().layers(depth)
        layers = [0, depth * 3 // 8, depth * 3 // 4]
        if len(set(layers)) < 3:
            raise BudgetError(f"a decoder of {depth} layers has no room for three stages; name them with layer=")
        return layers

    def budget(self, stage_index: int) -> Budget:
        return self._budgets()[stage_index]

    def _budgets(self) -> list[Budget]:
        """One per stage."""
        if isinstance(self.keep, list):
            return self.keep
        if isinstance(self.layer, int) or (isinstance(self.layer, list) and len(self.layer) == 1):
            return [self.keep]
        if isinstance(self.keep, int):
            return [max(1, int(self.keep * share)) for share in SHARES]
        return [1.0] * len(SHARES) if self.keep == 1 else [min(1.0, self.keep * share) for share in SHARES]

    def select(self, ctx: Context) -> Keep:
        if ctx.layer == 0:
            relevance, features = ctx.vision_attention().mean(1), ctx.embeds
        else:
            relevance, features = ctx.attention("text", average=True).mean((1, 2)), ctx.visual
        relevance = relevance.to(features.device)
        chosen = greedy_balance(relevance, features, ctx.n_keep, self.diversity, self.coverage, self.scaled)
        return Keep.indices(chosen, relevance.shape[1], relevance)
