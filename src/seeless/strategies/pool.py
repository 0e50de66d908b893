"""Average pooling: the third baseline, and the only one here that drops nothing."""

from dataclasses import field
from functools import lru_cache

import torch

from seeless.context import Context
from seeless.decision import Merge
from seeless.errors import BudgetError, InputError
from seeless.ops.pooling import pooling_cells
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("pool")
class Pool(EntryStrategy):
    """Average the tokens of each cell of the grid: as many even, near-square cells as the budget has tokens.

    Formula: a pooled token is the mean of the tokens of its cell, and stands at the place of the token in its middle.
    Signal: places in the grid alone; a baseline.
    """

    scope: Scope = field(default="crop", kw_only=True)
    rounding = round
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope not in ("crop", "frame"):
            raise BudgetError(f"pool averages over a grid; scope={self.scope!r} has none, use 'crop' or 'frame'")
        if self.threshold is not None:
            raise BudgetError("pool scores nothing, so it takes no threshold")

    def reduce(self, ctx: Context) -> Merge:
        if ctx.grid is None:
            raise InputError("pool needs the complete grid of a crop, but some of its tokens are gone already")
        frames, height, width = ctx.grid
        cells = _cells(frames * height, width, ctx.n_keep)
        cell, centre, weight = (x.to(ctx.index.device, non_blocking=True) for x in cells)
        units, visual = ctx.index.shape
        mask = torch.zeros(visual, dtype=torch.bool, device=ctx.index.device)
        mask[centre] = True
        source = torch.arange(visual, device=ctx.index.device)
        return Merge(
            mask.expand(units, -1),
            source.expand(units, -1),
            centre[cell].expand(units, -1),
            weight.expand(units, -1),
            count=ctx.n_keep,
        )


@lru_cache(maxsize=64)
def _cells(height: int, width: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`pooling_cells` and, `[height * width]`, the weight of every token in its cell's mean, on the host."""
    with torch.inference_mode(False), torch.device("cpu"):  # later forwards are other forwards: of training, say
        cell, centre = pooling_cells(height, width, count)
        return cell, centre, (1 / torch.bincount(cell, minlength=count))[cell]
