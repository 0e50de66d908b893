"""Random tokens: the baseline every method has to beat."""

from dataclasses import field
from typing import ClassVar

import torch

from seeless.context import Context
from seeless.errors import BudgetError, brief
from seeless.registry import register
from seeless.strategy import LayerStrategy, Scope


@register("random")
class Random(LayerStrategy):
    """Keep tokens at random: score = a seeded uniform number per token.

    Formula: score_j = u_j, drawn once per place from the uniform distribution on [0, 1) with `seed`.
    Signal: none; a baseline.

    The same seed keeps the same places in every unit of the same size, whatever else is in the batch.

    Args:
        layer: 0 (the default) drops at the entry, k drops before layer k.
        seed: of the random numbers.
    """

    layer: int | list[int] = 0
    seed: int = 0
    scope: Scope = field(default="image", kw_only=True)
    lowest_layer: ClassVar[int] = 0
    own_positions = "renumber"
    rounding = round
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not abs(self.seed) < 2**63:
            raise BudgetError(f"seed={brief(self.seed)} is not possible; give a whole number of at most {2**63 - 1}")

    def score(self, ctx: Context) -> torch.Tensor:
        scores = torch.rand(ctx.n_original, generator=torch.Generator().manual_seed(self.seed))
        return scores.to(ctx.index.device)[ctx.index]
