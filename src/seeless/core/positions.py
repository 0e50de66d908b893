"""Which token of the forward's input stands where, after some have left."""

from dataclasses import dataclass

import torch


@dataclass
class TokenRow:
    """The tokens that one depth of the decoder sees.

    Args:
        column: `[batch, slots]`, the column of the forward's input each slot holds, ascending over the valid slots but
            for tokens that were added, which have the column of one that left.
        valid: `[batch, slots]` bool, False = padding; None if there is none.
        closed: `[batch, slots]`, by how much "renumber" has lowered each slot's position; None = 0.
        closed_after: `[batch, 1]`, by how much it lowers every later position.
        token: `[batch, slots]`, `column`, or a number of its own (from the length of the input on) for a token that was
            added; None while there is none.
        place: `[batch, slots]`, the column whose position each slot has; None: that of `column`.
    """

    column: torch.Tensor
    valid: torch.Tensor | None
    closed: torch.Tensor | None = None
    closed_after: torch.Tensor | None = None
    token: torch.Tensor | None = None
    place: torch.Tensor | None = None

    @classmethod
    def full(cls, batch: int, length: int, valid: torch.Tensor | None, device: torch.device) -> "TokenRow":
        return cls(torch.arange(length, device=device).expand(batch, -1), valid)

    def cut(
        self, stays: torch.Tensor, renumber: bool, rank: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, "TokenRow"]:
        """Drop slots.

        Args:
            stays: `[batch, slots]` bool; slots of padding must be False.
            renumber: close the gaps in the positions.
            rank: `[batch, slots]`, the order in which the slots that stay come to stand; None = as they stand.

        Returns:
            `order` `[batch, new slots]`, the slot each new slot is taken from, and the row after the cut. Rows that
            keep fewer tokens than the longest are padded on the left.
        """
        counts = stays.sum(1)
        longest = int(counts.max())
        if rank is None:
            order = stays.byte().argsort(dim=1, stable=True)[:, stays.shape[1] - longest :]
        else:
            order = rank.masked_fill(~stays, -1).argsort(dim=1, stable=True)[:, stays.shape[1] - longest :]
        valid = None
        if int(counts.min()) < longest:
            valid = stays.gather(1, order)
        closed, after = self.closed, self.closed_after
        closed = None if closed is None else closed.gather(1, order)
        if renumber:
            dropped = ~stays if self.valid is None else ~stays & self.valid
            before, total = (dropped.cumsum(1) - dropped.long()).gather(1, order), dropped.sum(1, keepdim=True)
            closed = before if closed is None else closed + before
            after = total if after is None else after + total
        token, place = (None if x is None else x.gather(1, order) for x in (self.token, self.place))
        return order, TokenRow(self.column.gather(1, order), valid, closed, after, token, place)

    @property
    def tokens(self) -> torch.Tensor:
        return self.column if self.token is None else self.token

    @property
    def places(self) -> torch.Tensor:
        return self.column if self.place is None else self.place

    def slot_of(self, length: int) -> torch.Tensor:
        """`[batch, length]`: the slot that holds each column, -1 where the column has left."""
        return self._slots(self.column, length)

    def slot_of_token(self, count: int) -> torch.Tensor:
        """`[batch, count]`: the slot of each token, -1 where it is not."""
        return self._slots(self.tokens, count)

    def _slots(self, numbers: torch.Tensor, count: int) -> torch.Tensor:
        slots = torch.arange(numbers.shape[1], device=numbers.device).expand_as(numbers)
        if self.valid is not None:  # padding shares its column with a token; let it lose
            slots = torch.where(self.valid, slots, -1)
        start = torch.full((len(numbers), count), -1, device=numbers.device)
        return start.scatter_reduce(1, numbers, slots, "amax")

    def restore(self, hidden: torch.Tensor, length: int) -> torch.Tensor:
        """Back to full length `[batch, length, dim]`; a dropped token carries the last kept token before it."""
        slots = self.slot_of(length)
        if self.token is not None:
            slots = slots.masked_fill(self.token.gather(1, slots.clamp(min=0)) >= length, -1)
        filled = slots.cummax(1).values
        first = torch.where(filled < 0, filled.shape[1], filled).amin(1, keepdim=True)
        slot = torch.where(filled < 0, first, filled)
        return hidden.gather(1, slot[..., None].expand(-1, -1, hidden.shape[-1]))


def gather_tokens(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """`x` `[batch or 1, seq, dim]` at `order` `[batch, slots]`."""
    order = order.to(x.device)
    return x.expand(len(order), -1, -1).gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
