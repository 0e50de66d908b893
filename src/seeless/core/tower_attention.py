"""Attention of one layer of a vision tower, from the queries and keys that the layer itself made."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from seeless.core.attention import check_attention
from seeless.core.capture import Call
from seeless.errors import InputError
from seeless.ops.attention import attention_rows, received_attention
from seeless.tower import Asking


def in_one(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Some tensors joined along their first dimension; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


@dataclass
class AttentionTap:
    """What the attention of one tower layer handed to its kernel, in one call or piece by piece.

    Args:
        layer: its number.
        lead: whether the first token of every picture is a class token.
        whole: whether rows of all patches may be asked for where there is a class token.
    """

    layer: int
    lead: bool
    whole: bool = False
    calls: list[Call] = field(default_factory=list, repr=False)

    def see(self, call: Call) -> None:
        """Note a call, and of the queries those that may be read."""
        if self.lead and not self.whole:
            call.query = call.query[:, :, :1].clone()
        self.calls.append(call)

    def keys(self) -> torch.Tensor:
        """`[patches, kv_heads, dim]` of all pictures, class tokens included."""
        return in_one([call.key.transpose(1, 2).flatten(0, 1) for call in self.calls])

    def unpadded(self, sizes: Sequence[int]) -> "AttentionTap":
        """The same picture by picture, without the padding at their ends.

        Args:
            sizes: patches of every picture.
        """
        (call,) = self.calls

        def only(x: Any, row: int, dim: int) -> Any:
            return None if x is None else x[row : row + 1].narrow(dim, 0, sizes[row])

        own = [
            replace(
                call,
                query=only(call.query, row, 2),
                key=only(call.key, row, 2),
                value=only(call.value, row, 2),
                output=only(call.output, row, 1),
            )
            for row in range(len(sizes))
        ]
        return replace(self, calls=own)

    def joined(self) -> "AttentionTap":
        """The same as if the layer had one head of its whole width."""

        def joined(x: torch.Tensor, heads: int) -> torch.Tensor:
            return x.repeat_interleave(heads // x.shape[1], 1).transpose(1, 2).flatten(2)[:, None]

        def bare(call: Call) -> Call:
            query, key = (joined(x, call.query.shape[1]) for x in (call.query, call.key))
            scaling = key.shape[-1] ** -0.5
            return replace(
                call, query=query, key=key, scaling=scaling, softcap=None, sinks=None, value=None, output=None
            )

        return replace(self, calls=[bare(call) for call in self.calls])

    def attention(self, sizes: Sequence[int], seen: torch.Tensor | None, queries: Asking | None = None) -> torch.Tensor:
        """`[patches, heads]`, float32: from the class token, or from all patches of the piece on average.

        Args:
            sizes: patches of every picture, class tokens included.
            seen: `[pictures, patches]` bool, False = padding; None = all are real.
            queries: "all" takes all rows, the class token's included; None: its row alone, where there is one.

        Raises:
            UnsupportedModel: the model's own attention is another.
        """
        query, keys = (in_one([x.transpose(1, 2).flatten(0, 1) for x in own]) for own in self._states())
        lengths, first = self._lengths(sizes), self.calls[0]
        if sum(lengths) != len(keys):
            raise InputError(f"the vision tower saw {len(keys)} patches, but its pictures have {sum(lengths)}")
        if first.output is not None:
            self._check(first, lengths[0], seen)
        scaling, softcap, sinks = first.scaling, first.softcap, first.sinks
        result = torch.zeros(len(keys), query.shape[1], device=keys.device)
        for numbers, piece in _pieces(lengths, keys.device):
            own_keys = keys[piece].transpose(1, 2)
            if self.lead and queries != "all":  # every picture is one piece
                everything = torch.arange(piece.shape[1], device=keys.device).expand(len(piece), -1)
                class_query = (query[piece[:, 0]] if self.whole else query[numbers])[:, :, None]
                weights = attention_rows(class_query, own_keys, scaling, None, everything, softcap, sinks)[:, :, 0]
            else:
                real = None if seen is None else seen.flatten()[piece]
                weights = received_attention(query[piece].transpose(1, 2), own_keys, scaling, real, softcap, sinks)
            result[piece] = weights.transpose(1, 2)
        return result

    def _states(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [call.query for call in self.calls], [call.key for call in self.calls]

    def _lengths(self, sizes: Sequence[int]) -> list[int]:
        """How the patches fall into pieces that see only themselves."""
        lengths: list[int] = []
        for call in self.calls:
            rows, patches = len(call.key), call.key.shape[2]
            if call.ends is not None and len(call.ends) != len(sizes) + 1:  # attention windows, in one packed call
                lengths += call.ends.diff().tolist()
            elif call.ends is not None or (rows == len(self.calls) == 1 and len(sizes) > 1):
                lengths += sizes
            else:
                lengths += [patches] * rows
        return lengths

    def _check(self, call: Call, length: int, seen: torch.Tensor | None) -> None:
        """Compare the attention of the first token that was seen with the model's own."""
        row = torch.zeros(1, dtype=torch.long, device=call.key.device)
        columns = torch.arange(call.key.shape[2], device=row.device)[None]
        visible = columns < length
        if seen is not None:
            visible = visible & seen.flatten()[columns]
        query, key = call.query[:1, :, :1], call.key[:1]
        weights = attention_rows(query, key, call.scaling, visible[:, None], columns, call.softcap, call.sinks)
        check_attention(call, row, row[:, None], weights)


def _pieces(lengths: list[int], device: torch.device) -> list[tuple[list[int], torch.Tensor]]:
    """Patches that see each other: for every length of piece there is, the numbers of the pieces, and their patches,
    `[pieces, patches]`."""
    groups, start = defaultdict(list), 0
    for number, length in enumerate(lengths):
        groups[length].append((number, torch.arange(start, start + length, device=device)))
        start += length
    return [([n for n, _ in own], torch.stack([piece for _, piece in own])) for own in groups.values()]
