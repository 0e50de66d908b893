"""Queries and keys of a decoder layer."""

from functools import cached_property
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from seeless.core.family import ModelView
from seeless.core.sharding import check_whole
from seeless.errors import UnsupportedModel
from seeless.ops.attention import rotate

_known: "WeakSet[nn.Module]" = WeakSet()  # attention modules whose keys were seen to be what is computed here


class LayerTap:
    """The input of one decoder layer, and queries and keys from it.

    Args:
        hidden: `[batch, slots, dim]`, what the layer takes in.
        rotary: cos and sin `[batch or 1, slots, dim]`.
        cached: `[batch, kv_heads, past + slots or past, dim]` keys the layer's cache holds, or None.
        past: tokens the cache held before this forward.
    """

    def __init__(
        self,
        view: ModelView,
        index: int,
        hidden: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        cached: torch.Tensor | None,
        past: int,
    ) -> None:
        layer = view.layers[index]
        self.norm: nn.Module = getattr(layer, view.family.norm)
        self.attention: Any = getattr(layer, view.family.attention)
        self.softcap: float | None = getattr(self.attention, "attn_logit_softcapping", None)
        self.hidden, self.rotary, self.cached, self.past = hidden, rotary, cached, past
        self.scaling: float = self.attention.scaling

    def _project(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        """`[batch, heads, slots, head_dim]` before rotation."""
        projection = getattr(self.attention, f"{name}_proj")
        check_whole(projection)
        projected = projection(self.norm(hidden))
        projected = projected.view(*hidden.shape[:2], -1, self.attention.head_dim)
        norm = getattr(self.attention, f"{name}_norm", None)
        return (projected if norm is None else norm(projected)).transpose(1, 2)

    @cached_property
    def keys(self) -> torch.Tensor:
        """Rotated keys of everything the layer's queries may see, `[batch, kv_heads, past + slots, head_dim]`."""
        slots = self.hidden.shape[1]
        if self.cached is not None and self.cached.shape[2] == self.past + slots:
            self._check(self.cached)
            return self.cached
        new = rotate(self._project("k", self.hidden), *self.rotary)
        return new if self.past == 0 or self.cached is None else torch.cat([self.cached[:, :, : self.past], new], 2)

    def _check(self, cached: torch.Tensor) -> None:
        """Once per module: the model's own keys are what its projection, norm and rotary embedding give here."""
        if self.attention in _known:
            return
        last = rotate(self._project("k", self.hidden[:, -1:]), *(x[:, -1:] for x in self.rotary))
        if (last - cached[:, :, -1:]).abs().max() > 0.02 * cached[:, :, -1:].abs().max():
            raise UnsupportedModel(
                f"{type(self.attention).__name__} makes its keys in another way than projection, norm and half-split "
                "rotary embedding, so its attention cannot be read; use a strategy that reads the tower or nothing"
            )
        _known.add(self.attention)

    def queries(self, rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Rotated queries `[units, heads, queries, head_dim]` of `slots` `[units, queries]` of some batch `rows`."""
        hidden = self.hidden[rows[:, None], slots]
        cos, sin = (x.expand(len(self.hidden), -1, -1)[rows[:, None], slots] for x in self.rotary)
        return rotate(self._project("q", hidden), cos, sin)

    def rotated_ones(self, rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """An all-one vector at the places of `slots` `[units, places]`, rotated: `[units, 1, places, head_dim]`."""
        cos, sin = (x.expand(len(self.hidden), -1, -1)[rows[:, None], slots].float() for x in self.rotary)
        return rotate(torch.ones(*slots.shape, self.attention.head_dim, device=slots.device)[:, None], cos, sin)
