"""PixelPrune: leave out what the pixels before it already tell, ahead of the vision tower."""

import math
from typing import ClassVar

import torch

from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.prediction import predictable
from seeless.patches import PatchContext, PatchStrategy
from seeless.registry import register
from seeless.strategy import Positions


@register("pixelprune")
class PixelPrune(PatchStrategy):
    """Keep the tokens whose pixels their neighbours above and to the left do not predict, before the tower runs.

    Formula: a token X, in the order of reading, is compared with one of its neighbours A (left), B (above) and C (above
    left): A in the first row, B in the first column, elsewhere B if C is like A and not like B, and A if not. X stays
    unless it is like that one; the first token stays. Two tokens are alike if no pixel of theirs differs by more than
    `tolerance` of the range from black to white (`ops.prediction.predictable`).
    Signal: the pixels of a token, as the processor gives them, and nothing that a model made of them.
    Paper: "PixelPrune: Pixel-Level Adaptive Visual Token Reduction via Predictive Coding", arXiv 2604.00886.
    Original: OPPO-Mente-Lab/PixelPrune, Apache-2.0.

    How many tokens stay follows from the picture. What stays keeps its positions, in the tower and in the decoder;
    nothing is merged: that a region goes on is told by the gap alone. DeepStack features are made of what stays. Frames
    of videos are left alone.

    Deviations:
    - Every patch is embedded before the others leave; none of the tower's layers sees one that left.
    - The original is for Qwen3-VL and Qwen3.5. Here every tower whose patches can leave will do; where tiles overlap or
      are filled up with one colour, each is compared within itself.
    - Other measures of likeness than the greatest difference, and pruning after a later layer, are left out.

    Args:
        keep: None; the number follows from the picture.
        tolerance: how far pixels of like tokens may be apart; 0 asks for equal ones, 1 would be black and white.
        anchored: with a tolerance, compare with what the decoder could know: the pixels of tokens that stay, and for
            the others their prediction, so that each is within the tolerance of it. Otherwise neighbours' true pixels
            are compared, and differences add up.
        deviation: what the processor divided pixels by (`image_std`), a number or one per channel. Only with a
            tolerance does it matter. Qwen3-VL's is 0.5.
    """

    keep: None = None  # type: ignore[assignment]
    tolerance: float = 0.0
    anchored: bool = True
    deviation: float | list[float] = 0.5
    own_positions: ClassVar[Positions] = "keep"
    own_count = True
    paper = "arXiv 2604.00886"
    inside = ("pixels",)

    def __post_init__(self) -> None:
        if self.keep is not None or self.average is not None:
            raise BudgetError(
                f"pixelprune keeps what a picture's pixels do not repeat, so it takes no budget (keep={self.keep}, "
                f"average={self.average}); raise tolerance={self.tolerance} to keep less"
            )
        super().__post_init__()
        if not 0 <= self.tolerance < 1:
            raise BudgetError(f"tolerance={self.tolerance} is none between pixels from 0 to 1; give 0 or more, below 1")
        spread = self.deviation if isinstance(self.deviation, list) else [self.deviation]
        if not spread or not all(math.isfinite(own) and own > 0 for own in spread):
            raise BudgetError(f"deviation={self.deviation} is no standard deviation of pixels; give positive numbers")

    def tower_layers(self, made: int) -> list[int]:
        return [0]

    def leave(self, ctx: PatchContext) -> Keep:
        if ctx.video:
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool), count=ctx.index.shape[1])
        pixels = ctx.pixels[:, :, :, :, 0]
        channels = pixels.shape[3]
        spread = torch.tensor(self.deviation, dtype=pixels.dtype).to(pixels.device).flatten()
        if len(spread) not in (1, channels):
            raise BudgetError(f"deviation={self.deviation} has {len(spread)} numbers, but pictures {channels} channels")
        if self.tolerance > 0:
            pixels = pixels * spread[:, None, None]
        values = pixels.flatten(2).unflatten(1, ctx.grid)
        return Keep(~predictable(values, self.tolerance, self.anchored and self.tolerance > 0).flatten(1))
