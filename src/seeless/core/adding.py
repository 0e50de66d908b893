"""New tokens after the visual ones: the `Extend` decision, applied to a session."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from seeless.decision import Extend
from seeless.errors import InputError

if TYPE_CHECKING:
    from seeless.core.session import PlannedStage, Session


def add_tokens(
    session: "Session",
    stage: "PlannedStage",
    rows: torch.Tensor,
    columns: torch.Tensor,
    decision: Extend,
    slot_of: torch.Tensor,
    hidden: torch.Tensor,
    rank: torch.Tensor,
) -> torch.Tensor:
    """Put new tokens into slots of tokens that leave, and give them a rank right after the unit's last slot.

    Args:
        rank: `[batch, slots]`, `ranks` of the slots; changed.
    """
    if stage.layer == 0 or stage.renumber or stage.strategy.past != "trim":
        raise InputError("tokens can be added at decoder stages only, with positions='keep' and past='trim'")
    row_now = session.row
    token, place = row_now.tokens.clone(), row_now.places.clone()
    for row, column, mask, new in zip(rows[:, 0].tolist(), columns, decision.mask, decision.new, strict=True):
        mask = mask.to(column.device)
        kept, leaving = column[mask], column[~mask]
        if len(new) > len(leaving) or len(kept) == 0:
            raise InputError(f"{len(new)} tokens were added where {len(leaving)} of {len(column)} leave; add fewer")
        homes = leaving[len(leaving) - len(new) :]
        slots, number = slot_of[row, homes], torch.arange(len(new), device=token.device)
        rank[row, slots] = rank[row, slot_of[row, column]].max() + 1 + number
        token[row, slots] = session.length + session.added + number
        place[row, slots] = row_now.places[row, slot_of[row, kept[-1]]]
        session.added += len(new)
        at = slots.to(hidden.device)
        hidden = hidden.index_put((torch.full_like(at, row), at), new.to(hidden.device, hidden.dtype))
        session.alive[row, homes] = True
    session.row = replace(row_now, token=token, place=place)
    return hidden


def ranks(session: "Session") -> torch.Tensor:
    """`[batch, slots]`, one number per slot in their order, with room for new tokens between any two."""
    column = session.row.column
    numbers = torch.arange(column.shape[1], device=column.device) * (session.length + 1)
    return numbers.expand_as(column).clone()
