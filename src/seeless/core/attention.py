"""Attention of one decoder layer, from the queries and keys that the layer itself made; and a check that they are."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from seeless.core.capture import Call
from seeless.core.host import version
from seeless.core.positions import gather_tokens
from seeless.errors import UnsupportedModel
from seeless.ops.attention import attention_rows

CHECKED_ROWS = 4

Rows = tuple[torch.Tensor, torch.Tensor]  # rows of the batch, `[units]`, and slots in each, `[units, queries]`


def read_nothing(layer: nn.Module) -> UnsupportedModel:
    """The error for a layer whose attention asks for no kernel by name."""
    return UnsupportedModel(
        f"no attention module of {type(layer).__name__} takes its kernel from transformers' attention functions "
        f"(transformers {version()}), so its attention cannot be read; use a strategy that reads hidden states or "
        "nothing"
    )


@dataclass
class LayerTap:
    """Queries and keys of one decoder layer for what stands in the batch now.

    Args:
        layer: its number.
        take: gives what the layer handed to its kernel, or would if it ran, with the queries of some tokens at the
            least, or of all; called when something is read.
        slots: tokens of this forward that stand in the batch.
        past: tokens the layer's cache held before this forward.
        rotary: cos and sin `[batch or 1, slots, rotary dim]` that the layer gets.
        turns: tells whether it turns queries and keys by them; called when positions are asked for.
    """

    layer: int
    take: Callable[[Rows | None], Call]
    slots: int
    past: int
    rotary: tuple[torch.Tensor, ...]
    turns: Callable[[], bool]

    @cached_property
    def call(self) -> Call:
        return self._fitting(self.take(None))

    def ask(self, rows: torch.Tensor, slots: torch.Tensor) -> None:
        """Say which queries are read next, `slots` `[units, queries]` of batch `rows`: there may be no others then."""
        self.call = self._fitting(self.take((rows, slots)))

    def _fitting(self, call: Call) -> Call:
        if call.query.shape[2] != self.slots or call.key.shape[2] < self.past + self.slots:
            raise UnsupportedModel(
                f"{type(call.module).__name__} attends from {call.query.shape[2]} to {call.key.shape[2]} tokens where "
                f"{self.slots} came to {self.past}, so its attention cannot be read; use a strategy that reads hidden "
                "states or nothing"
            )
        return call

    @property
    def batch(self) -> int:
        return len(self.call.query)

    @property
    def device(self) -> torch.device:
        """Where the layer computes."""
        return self.call.query.device

    @property
    def keys(self) -> torch.Tensor:
        """Of everything the layer's queries may see, `[batch, kv_heads, past + slots, dim]`."""
        return self.call.key[:, :, : self.past + self.slots]

    def queries(self, rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """`[units, heads, queries, dim]` of `slots` `[units, queries]` of some batch `rows`."""
        return self.call.query[rows[:, None], :, slots].transpose(1, 2)

    def attention(
        self,
        rows: torch.Tensor,
        slots: torch.Tensor,
        visible: torch.Tensor | None,
        columns: torch.Tensor,
        together: bool = False,
        check: bool = True,
    ) -> torch.Tensor:
        """Attention `[units, heads, queries, columns]`, float32, of `slots` `[units, queries]` of some batch `rows`.

        Args:
            visible: `[units, queries, past + slots]` bool, True = the query sees the key; None = all.
            columns: `[units, columns]`, the keys to read.
            together: whether `rows` are all rows of the batch in order.
            check: whether `visible` is what the model lets the queries see, so that it can be compared.

        Raises:
            UnsupportedModel: the model's own attention is another.
        """
        keys, call = self.keys if together else self.keys[rows], self.call
        query = self.queries(rows, slots)
        if check and call.output is not None:
            some = query[:, :, :CHECKED_ROWS]
            seen = None if visible is None else visible[:, :CHECKED_ROWS]
            everything = torch.arange(keys.shape[2], device=keys.device).expand(len(keys), -1)
            weights = attention_rows(some, keys, call.scaling, seen, everything, call.softcap, call.sinks)
            check_attention(call, rows, slots[:, :CHECKED_ROWS], weights)
        return attention_rows(query, keys, call.scaling, visible, columns, call.softcap, call.sinks)

    def rope_bias(self, rows: torch.Tensor, slots: torch.Tensor, onto: torch.Tensor, frequencies: int) -> torch.Tensor:
        """The scaled product of all-one queries at `slots` and keys at `onto`, both `[units, ...]`, turned by position.

        Two pairs of ones turned by two angles have the product 2 cos(difference), wherever the layer puts the pair.
        Where it turns none, that is 2.

        Args:
            frequencies: different angles among the rotary dimensions.
        """

        def turned(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            return x.to(self.device).expand(self.batch, -1, -1)[rows[:, None], at].float()

        dim, turning = self.call.query.shape[-1], self.rotary[0].shape[-1]
        if not self.turns():
            return torch.full((len(rows), 1, slots.shape[1], onto.shape[1]), dim**0.5, device=self.device)
        query, key = (torch.cat([turned(x, at) for x in self.rotary], -1) for at in (slots, onto))
        product = query @ key.transpose(-1, -2) * (2 * frequencies / turning) + (dim - 2 * frequencies)
        return product[:, None] * dim**-0.5

    def cut(self, order: torch.Tensor) -> "LayerTap":
        """The same layer for what a cut leaves: `order` `[batch, new slots]`, the slot each new one is taken from."""

        def take(asked: Rows | None) -> Call:
            call, at = self.call, order.to(self.device)[:, None, :, None]
            new = self.keys[:, :, self.past :]
            query, new = (x.gather(2, at.expand(-1, x.shape[1], -1, x.shape[-1])) for x in (call.query, new))
            key = torch.cat([self.keys[:, :, : self.past], new], 2) if self.past else new
            return replace(call, query=query, key=key, value=None, output=None)

        rotary = tuple(gather_tokens(x, order) for x in self.rotary)
        return replace(self, take=take, slots=order.shape[1], rotary=rotary)


def check_attention(call: Call, rows: torch.Tensor, slots: torch.Tensor, weights: torch.Tensor) -> None:
    """Compare attention that was computed here with what the model's own kernel gave, once per kind of attention.

    Args:
        call: with its value and output.
        rows, slots: `[units]` and `[units, queries]`, batch rows and places of the queries.
        weights: `[units, heads, queries, keys]`, their attention to every key.

    Raises:
        UnsupportedModel: they differ.
    """
    assert call.value is not None and call.output is not None
    value = call.value[rows][:, :, : weights.shape[-1]]
    value = value.repeat_interleave(weights.shape[1] // value.shape[1], 1)
    here = (weights.to(value.dtype) @ value).transpose(1, 2).float()
    own = call.output[rows[:, None], slots].reshape(here.shape).float()
    bound = max(tolerance(value), tolerance(call.output)) * (own.abs().amax() + value.abs().amax() / 10)
    if not bool((here - own).abs().amax() <= bound):
        raise UnsupportedModel(
            f"the attention of {type(call.module).__name__} (transformers {version()}, torch {torch.__version__}, "
            f"attn_implementation={call.kernel!r}) is not what seeless computes from its queries and keys, so what a "
            "strategy reads would be wrong; use a strategy that reads hidden states or nothing, and please report this "
            "sentence with your model's config.json"
        )
    call.passed()


def tolerance(x: torch.Tensor) -> float:
    """Of what is worked out in two ways, as a share of its size."""
    exact = {torch.float64: 1e-5, torch.float32: 1e-4 if x.device.type == "cpu" else 3e-3}  # TF32 on a GPU
    return exact.get(x.dtype, 3e-2)
