"""CLSE: keep what the first layer changes and the last token looks at."""

import math
from dataclasses import field
from typing import Literal

import torch

from seeless.budget import Budget
from seeless.context import Context
from seeless.errors import BudgetError, InputError
from seeless.ops.spectral import spectral_evolution, spectral_intensity
from seeless.registry import register
from seeless.strategy import LayerStrategy, Past, Scope

SHARES = (1.72, 1.09, 0.32)
COUNTS = {192: (330, 210, 62), 128: (220, 140, 41), 64: (110, 70, 20)}
RATIOS = {0.334: (0.57, 0.36, 0.098), 0.223: (0.38, 0.24, 0.066), 0.112: (0.19, 0.12, 0.034)}
LAYERS = {32: (1, 11, 21), 28: (1, 10, 19), 36: (1, 13, 24)}


@register("clse")
class CLSE(LayerStrategy):
    """At the first of three stages keep what is looked at and changes in detail, later what is looked at.

    Formula: score = evolution * attention at the first stage, score = attention later. attention_j = mean over heads of
    A[last, j] in the layer before the stage; evolution in 0..1 says how much of a token's high-pass energy on the image
    grid changes between the embeddings and the stage, against the other tokens (`ops.spectral`). With
    variant="intensity", the paper's own method, there is one stage and no attention: score = that change as it is,
    between what enters the layer before the stage and what enters the stage's.
    Signal: attention of the last prompt token, embeddings and hidden states on the image grid.
    Paper: "Spectral Evolution-Guided Token Pruning in Multimodal Large Language Models", ECCV 2026, arXiv 2606.24165,
    section 3.2: equations 7 (Fourier transform), 8 (high-pass), 9 and 10 (residual), 11 and 12 (intensity), 13
    (choice); theory in 3.3. The released score is the hybrid of its figure 5b, by which this is called unless `variant`
    is given.
    Original: zjubinchen/CLSE, Apache-2.0 by its README, without a licence file.

    A number n stands for the budgets int(1.72 n), int(1.09 n), int(0.32 n) of the three stages, 192, 128 and 64 for the
    authors' own (330, 210, 62 for 192); a share r for r * (1.72, 1.09, 0.32) of the original tokens, at most all,
    floored, and 0.334, 0.223 and 0.112 for the authors' own. So the last layers see less than the number says and the
    layer average is more (208 for 192 on 32 layers). 1.0 keeps everything. One budget per stage, or one stage alone, is
    taken as it stands. variant="intensity" takes one budget. Tokens keep their positions; the caches of earlier layers
    are trimmed.

    The first stage asks the first decoder layer, where a last token may not look at the image yet. That of the embedded
    model `reader` hardly does: 57 % of its answers are right at 64 of 576 tokens, 97 % without attention at the first
    stage.

    Deviations: each image is ranked on its own; the original knows a single one, for which that is the same. Where its
    tokens fill no grid of at least 2 x 2 (the tiles and newlines of LLaVA-NeXT in the scope "image"), attention decides
    alone. The paper's variant that merges tokens (its appendix A.4) is not here.

    Args:
        layer: one layer per stage; by default [1, 11, 21] of 32, [1, 10, 19] of 28, [1, 13, 24] of 36 layers, else
            the first, 36 % and 67 % of the depth; for variant="intensity" 2.
        cutoff_ratio: width of the high-pass as a share of the half grid; 0 lets everything pass.
        temperature: of the sigmoid in `evolution`; lower is closer to yes or no.
        variant: "hybrid" as released, "intensity" as in the paper's section 3.2.
    """

    layer: int | list[int] | None = None  # type: ignore[assignment]
    cutoff_ratio: float = 0.1
    temperature: float = 0.1
    variant: Literal["hybrid", "intensity"] = "hybrid"
    scope: Scope = field(default="image", kw_only=True)
    past: Past = field(default="trim", kw_only=True)
    paper = "arXiv 2606.24165"
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cutoff_ratio < math.inf:
            raise BudgetError(f"cutoff_ratio={self.cutoff_ratio!r} is not possible; give 0 or a positive number")
        if not 0 < self.temperature < math.inf:
            raise BudgetError(f"temperature={self.temperature!r} is not possible; give a positive number")

    def schedule(self) -> tuple[list[Budget], list[int]]:
        budgets, alone = self._budgets(), self.variant == "intensity"
        if alone and (isinstance(self.keep, list) or isinstance(self.layer, list)):
            raise BudgetError("variant='intensity' has one stage; give one keep= and one layer=, no lists")
        if self.layer is None and not alone and len(budgets) != 3:
            raise BudgetError(f"keep={self.keep} gives {len(budgets)} budgets; name as many layers with layer=")
        stages = len(self.layer) if isinstance(self.layer, list) else 1
        if not isinstance(self.keep, list) and self.layer is not None and stages not in (1, 3):
            raise BudgetError(
                f"keep={self.keep} stands for three stages (or one), but layer={self.layer} names {stages}; "
                "give keep= one budget per layer"
            )
        if self.layer is None:
            return budgets, [2] if alone else [1, 2, 3]
        return budgets, super().schedule()[1]

    def layers(self, depth: int) -> list[int]:
        if self.layer is not None:
            return super().layers(depth)
        if self.variant == "intensity":
            if depth < 3:
                raise BudgetError(f"a decoder of {depth} layers has no layer 2; name another with layer=")
            return [2]
        layers = list(LAYERS.get(depth, (1, max(1, round(0.36 * depth)), max(1, round(0.67 * depth)))))
        if layers != sorted(set(layers)) or layers[-1] >= depth:
            raise BudgetError(f"a decoder of {depth} layers has no room for three stages; name them with layer=")
        return layers

    def watches(self, depth: int) -> list[int]:
        return [self.layers(depth)[0] - 1] if self.variant == "intensity" else []

    def budget(self, stage_index: int) -> Budget:
        return self._budgets()[stage_index]

    def _budgets(self) -> list[Budget]:
        """One per stage."""
        if isinstance(self.keep, list):
            return self.keep
        if self.variant == "intensity":
            return [self.keep]
        if isinstance(self.layer, int) or (isinstance(self.layer, list) and len(self.layer) == 1):
            return [self.keep]
        if isinstance(self.keep, int):
            return list(COUNTS.get(self.keep, [max(1, int(self.keep * share)) for share in SHARES]))
        if self.keep == 1:
            return [1.0] * len(SHARES)
        return list(RATIOS.get(self.keep, [min(1.0, self.keep * share) for share in SHARES]))

    def score(self, ctx: Context) -> torch.Tensor:
        if self.variant == "intensity":
            return self._intensity(ctx)
        attention = ctx.attention(queries="last").mean((1, 2))
        if ctx.stage_index > 0 or ctx.grid is None or min(ctx.grid[1:]) < 2:
            return attention
        now = ctx.visual
        evolution = spectral_evolution(ctx.embeds.to(now.device), now, ctx.grid, self.cutoff_ratio, self.temperature)
        return evolution.to(attention.device) * attention

    def _intensity(self, ctx: Context) -> torch.Tensor:
        if ctx.grid is None or min(ctx.grid[1:]) < 2:
            raise InputError(
                "clse with variant='intensity' has nothing but the grid of the picture to rank by, and these tokens "
                "fill none of at least 2 x 2; use scope='crop', or variant='hybrid'"
            )
        now = ctx.visual
        return spectral_intensity(ctx.entering(ctx.layer - 1).to(now.device), now, ctx.grid, self.cutoff_ratio)
