"""Which token of the forward's input stands where, after some have left."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from seeless.core.transfer import upload


@dataclass(eq=False)
class TokenRow:
    """The tokens that one depth of the decoder sees. How many there are is known on the host, which, on the device.

    Args:
        column: `[batch, slots]`, the column of the forward's input each slot holds, ascending over the valid slots but
            for tokens that were added, which have the column of one that left.
        lengths: tokens of every row.
        valid: `[batch, slots]` bool, False = padding; None if there is none.
        moved: `[batch, slots]`, what "renumber" adds to each slot's position; None = 0.
        moved_after: `[batch, 1]`, what it adds to every later position; None = 0.
        token: `[batch, slots]`, `column`, or a number of its own (from the length of the input on) for a token that was
            added; None while there is none.
        place: `[batch, slots]`, the column whose position each slot has; None: that of `column`.
        whole: whether these are the columns of the input as they came.
    """

    column: torch.Tensor
    lengths: list[int]
    valid: torch.Tensor | None
    moved: torch.Tensor | None = None
    moved_after: torch.Tensor | None = None
    token: torch.Tensor | None = None
    place: torch.Tensor | None = None
    whole: bool = False
    _slot_of: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def full(cls, lengths: list[int], length: int, valid: torch.Tensor | None, device: torch.device) -> "TokenRow":
        column = torch.arange(length, device=device).expand(len(lengths), -1)
        return cls(column, lengths, valid, whole=True)

    @property
    def slots(self) -> int:
        return self.column.shape[1]

    def cut(
        self, stays: torch.Tensor, lengths: list[int], renumber: bool, rank: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, "TokenRow"]:
        """Drop slots.

        Args:
            stays: `[batch, slots]` bool; slots of padding must be False.
            lengths: how many stay in every row.
            renumber: close the gaps in the positions.
            rank: `[batch, slots]`, the order in which the slots that stay come to stand; None = as they stand.

        Returns:
            `order` `[batch, new slots]`, the slot each new slot is taken from, and the row after the cut. Rows that
            keep fewer tokens than the longest are padded on the left.
        """
        longest = max(lengths)
        places = stays.byte() if rank is None else rank.masked_fill(~stays, -1)
        order = places.argsort(dim=1, stable=True)[:, self.slots - longest :]
        valid = None
        if min(lengths) < longest:
            valid = left_padded(lengths, longest, stays.device)
        moved = None if self.moved is None else self.moved.gather(1, order)
        after = self.moved_after
        if renumber:
            dropped = ~stays if self.valid is None else ~stays & self.valid
            until = dropped.cumsum(1)
            gap = until.gather(1, order)  # none of those that stay was dropped, so this counts the ones before
            moved = -gap if moved is None else moved - gap
            after = -until[:, -1:] if after is None else after - until[:, -1:]
        token, place = (None if x is None else x.gather(1, order) for x in (self.token, self.place))
        column = order if self.whole else self.column.gather(1, order)
        return order, TokenRow(column, lengths, valid, moved, after, token, place)

    @property
    def tokens(self) -> torch.Tensor:
        return self.column if self.token is None else self.token

    @property
    def places(self) -> torch.Tensor:
        return self.column if self.place is None else self.place

    def at(self, rows: torch.Tensor, columns: torch.Tensor, length: int) -> torch.Tensor:
        """Slots of some `columns` of some batch `rows`, of one shape; -1 where the column has left."""
        return columns if self.whole else self.slot_of(length)[rows, columns]

    def slot_of(self, length: int) -> torch.Tensor:
        """`[batch, length]`: the slot that holds each column, -1 where the column has left."""
        if self._slot_of is None:
            self._slot_of = self._slots(self.column, length)
        return self._slot_of

    def slot_of_token(self, count: int) -> torch.Tensor:
        """`[batch, count]`: the slot of each token, -1 where it is not."""
        return self._slots(self.tokens, count)

    def _slots(self, numbers: torch.Tensor, count: int) -> torch.Tensor:
        slots = torch.arange(self.slots, device=numbers.device).expand_as(numbers)
        if self.valid is not None:  # padding shares its column with a token; let it lose
            slots = torch.where(self.valid, slots, -1)
        start = torch.full((len(numbers), count), -1, device=numbers.device)
        return start.scatter_reduce(1, numbers, slots, "amax")

    def trimmed_to(self, later: "TokenRow", dropped: list[bool], count: int) -> tuple[torch.Tensor, "TokenRow"]:
        """Only the tokens of a later row, where one has dropped any; other rows stay as they are.

        Args:
            count: numbers of tokens there are, added ones included.

        Returns:
            `order` `[batch, new slots]`, the slot each new slot is taken from, -1 for tokens that are not here; and the
            row they make.
        """
        order = self.slot_of_token(count).gather(1, later.tokens)
        if all(dropped):
            return order, later
        device = self.column.device
        stays = torch.ones_like(self.column, dtype=torch.bool) if self.valid is None else self.valid
        own_order, own = self.cut(stays, self.lengths, False)
        lengths = [a if leaves else b for a, b, leaves in zip(later.lengths, self.lengths, dropped, strict=True)]
        slots = max(lengths)
        mine = upload([np.array(dropped)[:, None]], device)[0].bool()

        def mixed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            a, b = (torch.nn.functional.pad(x, (max(0, slots - x.shape[1]), 0))[:, -slots:] for x in (a, b))
            return torch.where(mine, a, b)

        valid = left_padded(lengths, slots, device) if min(lengths) < slots else None
        row = TokenRow(mixed(later.column, own.column), lengths, valid)
        if later.token is not None or self.token is not None:
            row.token = mixed(later.tokens, own.tokens)
            row.place = mixed(later.places, own.places)
        return mixed(order, own_order), row

    def last_kept(self, length: int) -> torch.Tensor:
        """`[batch, length]`: the slot of each column, or of the last kept token before it; -1 before the first."""
        slots = self.slot_of(length)
        if self.token is not None:
            slots = slots.masked_fill(self.token.gather(1, slots.clamp(min=0)) >= length, -1)
        return slots.cummax(1).values

    def restore(self, hidden: torch.Tensor, length: int) -> torch.Tensor:
        """Back to full length `[batch, length, dim]`; a dropped token carries the last kept token before it."""
        filled = self.last_kept(length)
        none = filled < 0
        first = filled.masked_fill(none, filled.shape[1]).amin(1, keepdim=True)
        return gather_tokens(hidden, torch.where(none, first, filled))


def left_padded(lengths: Sequence[int], slots: int, device: torch.device) -> torch.Tensor:
    """`[batch, slots]` bool, False on padding at the left of rows of so many tokens."""
    (first,) = upload([slots - np.array(lengths)[:, None]], device)
    return torch.arange(slots, device=device) >= first


def gather_tokens(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """`x` `[batch or 1, seq, dim]` at `order` `[batch, slots]`."""
    order = order.to(x.device)
    if len(x) == 1:
        return x[0].index_select(0, order.flatten()).view(*order.shape, -1)
    first = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (order + first).flatten()).view(*order.shape, -1)


def take_tokens(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """`x` `[batch or 1, seq, ...]` at `order` `[batch, slots]`."""
    return gather_tokens(x.flatten(2) if x.ndim > 2 else x[..., None], order).view(*order.shape, *x.shape[2:])


def take_positions(positions: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """`positions` `[..., batch or 1, seq]` at `column` `[batch, slots]`."""
    positions = positions.expand(*positions.shape[:-2], len(column), -1)
    return positions.gather(-1, column.to(positions.device).expand(*positions.shape[:-2], -1, -1))
