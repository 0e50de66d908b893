"""Strategies that act at the entry and once more between layers, by one budget."""

from dataclasses import field
from typing import ClassVar, Literal

from seeless.budget import Budget
from seeless.errors import BudgetError
from seeless.strategy import Positions, Scope, Stage, Strategy


class TwoStageStrategy(Strategy):
    """A strategy that acts at the entry (stage 0) and once more before a decoder layer (stage 1).

    One budget drives both stages: what of it a stage keeps is the method's own rule, and may follow from the picture.
    With `keep=1.0` neither stage is asked. `depth_share` says where the second stage is by default: before layer
    a * depth / b, rounded.

    Args:
        keep: share of the visual tokens of a unit, or their number, in the method's own terms.
        layer: before which the second stage is, 1 or more; None: by `depth_share`.
    """

    layer: int | None = None
    scope: Scope = field(default="image", kw_only=True)
    stage: ClassVar[Stage] = Stage.LAYER
    adaptive: ClassVar[bool] = True
    own_positions: ClassVar[Positions | tuple[Positions, ...]] = ("renumber", "keep")
    depth_share: ClassVar[tuple[int, int]] = (1, 2)
    only_scope: ClassVar[Literal["image", "crop"]] = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.keep, list):
            raise BudgetError(f"one budget drives both stages of {self.name}; give one number, not keep={self.keep}")
        if self.average is not None:
            raise BudgetError(f"{self.name} shares one budget between its stages by its own rule; give keep=")
        if self.threshold is not None:
            raise BudgetError(f"{self.name} keeps a number of tokens, so it takes no threshold")
        if self.scope != (only := type(self).only_scope):
            whole = {"image": "videos", "crop": "crops"}[only]
            raise BudgetError(f"{self.name} takes {whole} whole; scope={self.scope!r} is not possible, use {only!r}")
        if self.layer is not None and self.layer < 1:
            raise BudgetError(
                f"layer={self.layer} is not possible: {self.name} acts at the entry, then before layer 1 or later"
            )

    def layers(self, depth: int) -> list[int]:
        above, below = self.depth_share
        layer = max(1, round(depth * above / below)) if self.layer is None else self.layer
        if layer >= depth:
            raise BudgetError(
                f"layer={layer} lies outside this model, whose decoder has {depth} layers (0 to {depth - 1})"
            )
        return [0, layer]

    def share(self, visual: int) -> float:
        """The budget as a share of a unit of so many tokens."""
        keep: Budget = self.budget(0)
        return keep if isinstance(keep, float) else min(1.0, keep / visual)
