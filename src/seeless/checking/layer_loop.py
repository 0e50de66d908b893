"""The oracle for decoders with recurrent layers: a stock model's own layers, called one after the other.

A recurrent layer carries along what it has seen, so a token out of sight is not one that has left. Here it is taken
away: every row runs alone, without padding, and before each layer without the tokens that were dropped by then.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import MoeModelOutputWithPast

import seeless as sl
from seeless.checking.oracle import Cuts, decoder_of

RECURRENT = ("linear_attention", "conv")


def is_recurrent(model: nn.Module, family: sl.Family) -> bool:
    """Whether some layers of a model's decoder have no attention."""
    kinds = getattr(decoder_of(model, family).config, "layer_types", None) or ()
    return any(kind in RECURRENT for kind in kinds)


class LayerLoop:
    """The decoder of a stock model with eager attention, found by the names of its family."""

    def __init__(self, model: nn.Module, family: sl.Family) -> None:
        self.decoder = decoder_of(model, family)
        self.layers = list(getattr(self.decoder, family.layers))
        self.rotary: Any = getattr(self.decoder, family.rotary)
        self.norm: Any = getattr(self.decoder, family.final_norm)
        self.kinds = self.decoder.config.layer_types

    @contextmanager
    def under(self, cuts: Cuts) -> Iterator[None]:
        """Let it see no more than that while the block lasts."""

        def forward(attention_mask: Any, inputs_embeds: Any, position_ids: Any = None, **unused: Any) -> Any:
            states, real = inputs_embeds, attention_mask.bool()
            at = torch.arange(states.shape[1])[None] if position_ids is None else position_ids
            at = at[-3:] if at.ndim == 3 else at
            for index in range(len(self.layers)):
                at = at if cuts.positions is None else cuts.positions[index]
                gone = cuts.hidden[index, :, 0]  # the same for all queries
                rows = [self._row(index, row, states[row], real[row] & ~gone[row], at) for row in range(len(states))]
                states = torch.stack(rows)
            return MoeModelOutputWithPast(last_hidden_state=self.norm(states))

        self.decoder.forward = forward
        try:
            yield
        finally:
            del self.decoder.forward

    def _row(self, index: int, row: int, states: torch.Tensor, left: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """`states` `[seq, dim]` of a row after a layer that sees what is left of it."""
        columns = left.nonzero()[:, 0]
        own = states[columns][None]
        mask = rotary = None
        if self.kinds[index] not in RECURRENT:
            unseen = torch.ones(len(columns), len(columns), dtype=torch.bool).triu(1)
            if self.kinds[index] == "sliding_attention":
                unseen |= columns[:, None] - columns >= self.decoder.config.sliding_window
            mask = torch.zeros(1, 1, *unseen.shape).masked_fill(unseen, torch.finfo(torch.float32).min)
            places = at[..., min(row, at.shape[-2] - 1), columns]
            by_kind = (self.kinds[index],) if "layer_type" in inspect.signature(self.rotary.forward).parameters else ()
            rotary = self.rotary(own, places[..., None, :], *by_kind)
        out = self.layers[index](own, attention_mask=mask, position_embeddings=rotary, position_ids=None)
        return states.index_copy(0, columns, (out[0] if isinstance(out, tuple) else out)[0])
