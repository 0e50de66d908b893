"""Evenly spaced tokens: the second baseline."""

from dataclasses import field
from typing import ClassVar

import torch

from seeless.context import Context
from seeless.decision import Keep
from seeless.registry import register
from seeless.strategy import LayerStrategy, Scope


@register("uniform")
class Uniform(LayerStrategy):
    """Keep every n-th token, spread evenly.

    Formula: places floor((i + 1/2) * visual / keep), i = 0 ... keep - 1.
    Signal: places alone; a baseline.

    Args:
        layer: 0 (the default) drops at the entry, k drops before layer k.
    """

    layer: int | list[int] = 0
    scope: Scope = field(default="image", kw_only=True)
    lowest_layer: ClassVar[int] = 0
    own_positions = "renumber"
    rounding = round
    tower = ()

    def select(self, ctx: Context) -> Keep:
        units, visual = ctx.index.shape
        place = (2 * torch.arange(ctx.n_keep, device=ctx.index.device) + 1) * visual // (2 * ctx.n_keep)
        return Keep.indices(place.expand(units, -1), visual)
