"""What a guest is shown at one cut of one prompt: tokens in order, attention, the entries of its context."""

from functools import cached_property
from typing import Any

import torch

from seeless.context import Context
from seeless.vtr.attention import LazyAttention
from seeless.vtr.base import over_heads
from seeless.vtr.config import VTRConfig
from seeless.vtr.deferred import Deferred
from seeless.vtr.wholemaps import WholeMaps

EPSILON = 1e-10


class Shown:
    """The prompt as PriorTR's framework would have it: all text before the last visual token, the visual tokens, text.

    Args:
        ctx: of the cut.
        config: of the strategy.
        maps: asked before a whole attention map comes into being.

    Attributes:
        order: `[seq]`, where these tokens stand in `ctx.hidden`.
        range: start and end of the visual ones in that order.
    """

    def __init__(self, ctx: Context, config: VTRConfig, maps: WholeMaps) -> None:
        self.ctx, self.config, self.maps = ctx, config, maps
        seq, places = ctx.hidden.shape[1], ctx.places[0]
        visual = torch.zeros(seq, dtype=torch.bool, device=places.device)
        visual[places] = True
        order = torch.arange(seq, device=places.device)
        before = order[~visual & (order < places[-1])]
        after = order[~visual & (order > places[-1])]
        self.order = torch.cat([before, places, after])
        self.range = len(before), len(before) + len(places)

    @cached_property
    def hidden(self) -> torch.Tensor:
        """What the layer before the cut gave, `[1, seq, dim]`."""
        states = self.ctx.uninjected
        return states[:, self.order.to(states.device)]

    @cached_property
    def embeds(self) -> torch.Tensor:
        """What entered the first layer, `[1, seq, dim]`."""
        return self.ctx.row_embeds[:, self.order]

    @cached_property
    def _last_row(self) -> torch.Tensor:
        """`[heads, 1, visual]`, which shows how many heads there are, and where attention is computed."""
        return self.ctx.attention("last")[0]

    def attention(self, layer: int, causal: bool) -> LazyAttention:
        """The map of a layer that can be read at this cut: the one before it, or the coming one."""
        order, ctx = self.order, self.ctx

        def read(rows: torch.Tensor) -> torch.Tensor:
            chosen = order[rows.to(order.device)]
            found = ctx.attention(chosen, layer=layer, onto="row", causal=causal)[0]
            return found[:, :, order.to(found.device)]

        heads, device = len(self._last_row), self._last_row.device
        return LazyAttention(read, heads, len(order), ctx.hidden.dtype, device, self.maps)

    def entries(self, earlier: list[int], before_decoder: bool) -> dict[str, Any]:
        """What the context holds at this cut, beside what the strategy and earlier cuts put there.

        Args:
            earlier: layers before the cut whose incoming visual states were asked for.
        """
        ctx = self.ctx
        found: dict[str, Any] = {
            "hidden_states": self.hidden,
            "score_layer": ctx.layer - 1,
            "original_tokens": ctx.n_original,
            "vit_importance": self._of_tower(),
            "vit_merged_features": self._of_visual(lambda: ctx.embeds[0], ctx.hidden.shape[-1:], ctx.hidden.dtype),
        }
        if ctx.grid is not None:
            found |= {"grid_hw": ctx.grid[1:], "grid_thw": ctx.grid}
        if earlier:
            found["z_ref"] = ctx.entering(max(earlier))[0]
        if not before_decoder:
            found["next_attention"] = self.attention(ctx.layer, not self.config.as_released)
            found |= self._priors()
        return found

    def _of_visual(self, make: Any, rest: tuple, dtype: torch.dtype) -> Deferred:
        start, end = self.range
        return Deferred(make, (end - start, *rest), dtype, self.ctx.hidden.device)

    def _of_tower(self) -> Deferred:
        return self._of_visual(lambda: self.ctx.vision_attention()[0].mean(0), (), torch.float32)

    def _priors(self) -> dict[str, Any]:
        """Attention of the prompt cut off after the image, in which no question was seen yet.

        In a causal decoder its last row is the same in the whole prompt. PriorTR's copy for Video-LLaVA reads it one
        layer later, and divided by its sum.
        """
        backbone, (start, end) = self.config.backbone, self.range
        row, video = end + backbone.null_row, backbone.name == "video_llava"
        if not backbone.blind or row >= len(self.order) or self.config.prior_mode == "template":
            return {}
        layer = self.ctx.layer if video else self.ctx.layer - 1

        def make() -> torch.Tensor:
            prior = over_heads(self.attention(layer, causal=True)[:, :, row, start:end], self.config).squeeze(0)
            return prior / (prior.sum() + EPSILON) if video else prior

        prior = self._of_visual(make, (), self.ctx.hidden.dtype)
        return {"prior_attention": prior, "prior_attentions": {layer: prior}}
