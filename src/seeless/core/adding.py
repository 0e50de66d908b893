"""New tokens after the visual ones: the `Extend` decision, applied to a session."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from seeless.core.groups import Group
from seeless.core.session import Session
from seeless.core.transfer import upload
from seeless.decision import Extend
from seeless.errors import StrategyError, UnsupportedModel

if TYPE_CHECKING:
    from seeless.core.stages import PlannedStage


def add_tokens(
    session: Session,
    stage: "PlannedStage",
    group: Group,
    decision: Extend,
    counts: list[int],
    hidden: torch.Tensor,
    rank: torch.Tensor,
    alive: torch.Tensor,
) -> torch.Tensor:
    """Put new tokens into slots of tokens that leave, and give them a rank right after the unit's last slot.

    Args:
        counts: tokens of every unit that stay.
        rank: `[batch, slots]`, `ranks` of the slots; changed.
        alive: `[batch, seq]`, of the columns; changed.
    """
    where = f"{type(stage.strategy).__name__}, {stage.place}"
    if stage.layer == 0 or stage.renumber or stage.strategy.past != "trim":
        raise StrategyError(
            f"{where}: tokens can be added at decoder stages only, with positions='keep' and past='trim'"
        )
    if session.layer_inputs:
        raise UnsupportedModel(
            f"the layers of this {session.view.family.title} model take something of their own for every token, which "
            "added tokens do not have; use a strategy that keeps or merges"
        )
    new, row_now, visual = decision.new, session.row, group.present
    added, device, units = new.shape[1], row_now.column.device, len(group.units)
    if min(counts) == 0:
        raise StrategyError(
            f"{where}: a decision that adds tokens keeps no token of some unit; new ones stand where a kept one does"
        )
    if any(added > visual - kept for kept in counts):
        raise StrategyError(
            f"{where}: {added} tokens were added where {visual - max(counts)} of {visual} leave; add fewer"
        )
    if added == 0:
        return hidden
    (leaving,) = upload([visual - np.array(counts)[:, None]], device)
    order = decision.mask.to(device).byte().argsort(dim=1, stable=True)  # those that leave, then those that stay
    step, unit = torch.arange(added, device=device), torch.arange(units, device=device)[:, None]
    homes, last = order.gather(1, leaving - added + step), order[:, -1:]
    rows, slots = group.rows[:, None], group.slots.gather(1, homes)
    token, place = row_now.tokens.clone(), row_now.places.clone()
    place[rows, slots] = row_now.places[rows, group.slots.gather(1, last)]
    token[rows, slots] = session.prompt.length + session.added + unit * added + step
    rank[rows, slots] = rank[rows, group.slots].amax(1, keepdim=True) + 1 + step
    session.added += units * added
    alive[rows, group.columns.gather(1, homes)] = True
    session.row = replace(row_now, token=token, place=place, _slot_of=None)
    at = (rows.to(hidden.device), slots.to(hidden.device))
    return hidden.index_put(at, new.to(hidden.device, hidden.dtype))


def ranks(session: Session) -> torch.Tensor:
    """`[batch, slots]`, one number per slot in their order, with room for new tokens between any two."""
    column = session.row.column
    numbers = torch.arange(column.shape[1], device=column.device) * (session.prompt.length + 1)
    return numbers.expand_as(column).clone()
