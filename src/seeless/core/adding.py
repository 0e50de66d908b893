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
) -> torch.Tensor:
    """Put new tokens after the kept ones: both move into the columns of kept tokens and of some that leave."""
    if stage.layer == 0 or stage.renumber or stage.strategy.past != "trim":
        raise InputError("tokens can be added at decoder stages only, with positions='keep' and past='trim'")
    token, place = session.row.tokens.clone(), session.row.places.clone()
    for row, column, mask, new in zip(rows[:, 0].tolist(), columns, decision.mask, decision.new, strict=True):
        mask = mask.to(column.device)
        kept, leaving = column[mask], column[~mask]
        if len(new) > len(leaving) or len(kept) == 0:
            raise InputError(f"{len(new)} tokens were added where {len(leaving)} of {len(column)} leave; add fewer")
        carriers = leaving[len(leaving) - len(new) :]
        homes = slot_of[row, torch.cat([kept, carriers]).sort().values]
        before = slot_of[row, kept]
        numbers = session.length + session.added + torch.arange(len(new), device=token.device)
        session.added += len(new)
        tokens = torch.cat([session.row.tokens[row, before], numbers])
        places = session.row.places[row, before]
        token[row, homes], place[row, homes] = tokens, torch.cat([places, places[-1:].expand(len(new))])
        at = homes.to(hidden.device)
        values = torch.cat([hidden[row, before.to(hidden.device)], new.to(hidden.device, hidden.dtype)])
        hidden = hidden.index_put((torch.full_like(at, row), at), values)
        session.alive[row, column] = False
        session.alive[row, session.row.column[row, homes]] = True
    session.row = replace(session.row, token=token, place=place)
    return hidden
