"""What a strategy is shown of one stage: units in groups of equal size, and a context for each group."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from seeless.context import Context
from seeless.core.attention import LayerTap
from seeless.core.taps import GroupSources
from seeless.core.units import Unit
from seeless.errors import InputError

if TYPE_CHECKING:
    from seeless.core.session import PlannedStage, Session

NOTHING_TO_LEARN = -100  # the label that transformers leaves out of the loss


def group_units(session: "Session", units: list[Unit], tokens: list[torch.Tensor], alone: bool) -> list[list[int]]:
    """Units that fill dense tensors: equal tokens and budgets, in rows of equal length and equal text."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, unit in enumerate(units):
        if len(tokens[i]) == 0:
            continue
        answers = _answers(session, unit.row)
        surroundings = _row_slots_count(session, unit.row), _text_after(session, unit.row)
        more = None if answers is None else len(answers), i if alone else 0
        groups[(len(tokens[i]), len(unit.tokens), unit.grid, *surroundings, *more)].append(i)
    return list(groups.values())


def context_of(
    session: "Session",
    stage: "PlannedStage",
    units: list[Unit],
    tokens: list[torch.Tensor],
    slot_of: torch.Tensor,
    hidden: torch.Tensor,
    taps: dict[int, LayerTap],
    second: Callable | None = None,
) -> tuple[Context, GroupSources]:
    """The context of a group of units, and the sources that answer it.

    Args:
        tokens: per unit, places of what is left among the row's original visual tokens.
        slot_of: `[batch, length]`, where every column stands now.
        taps: decoder layers that may be read.
        second: runs a second prompt, while the strategy prepares.
    """
    strategy, dense = stage.strategy, torch.stack(tokens)
    rows, columns = places_of(session, units, tokens)
    text, text_columns, whole, whole_columns, anchors, answers = [], [], [], [], [], []
    for unit in units:
        own_text, own = session.text_columns[unit.row], session.layout.columns[unit.row]
        text_columns.append(own_text[own_text > own[-1]])
        text.append(slot_of[unit.row, text_columns[-1]])
        present = slot_of[unit.row] >= 0
        if session.valid is not None:
            present = present & session.valid[unit.row]
        slots, order = slot_of[unit.row, present].sort()
        whole.append(slots)
        whole_columns.append(present.nonzero()[order, 0])
        after = own_text[own_text > own[unit.tokens[-1]]]
        step = session.view.family.anchor
        if (before := _answers(session, unit.row)) is not None:
            answers.append(slot_of[unit.row, before])
        anchors.append(int(slot_of[unit.row, after[step]]) if len(after) > step else None)
    complete = dense.shape[1] == len(units[0].tokens)
    sources = GroupSources(
        layout=session.layout,
        units=units,
        rows=rows[:, 0],
        tokens=dense,
        slots=slot_of[rows, columns],
        text_slots=torch.stack(text),
        row_slots=torch.stack(whole),
        anchors=anchors,
        answer_slots=torch.stack(answers) if answers else None,
        hidden_states=hidden,
        uninjected_states=hidden if session.uninjected is None else session.uninjected,
        input_embeds=session.embeds,
        input_slots=columns,
        input_text_slots=torch.stack(text_columns),
        input_row_slots=torch.stack(whole_columns),
        watched=partial(_entered, session, units=units),
        moved=session.row.token is not None,
        taps=taps,
        masks={layer: session.mask(layer, session.row) for layer in taps},
        blocks=session.blocks_of(session.row),
        blind=not session.view.family.prefix,
        final_norm=session.view.final_norm,
        vision=session.vision.asked_by(strategy),
        view=session.view,
        text_ids=None if session.ids is None else session.ids.to(rows.device)[rows, torch.stack(text_columns)],
        run_second=second,
    )
    index = torch.searchsorted(torch.stack([unit.tokens for unit in units]), dense)
    original = len(units[0].tokens)
    places = [(id(strategy), unit.row, int(unit.tokens[0])) for unit in units]
    prepared = [session.prepared[place] for place in places if place in session.prepared]
    context = Context(
        layer=stage.layer,
        stage_index=stage.index,
        n_keep=min(strategy.count(stage.index, original), dense.shape[1]),
        index=index,
        n_original=original,
        grid=units[0].grid if complete else None,
        answers=len(answers[0]) if answers else None,
        memory=session.memory[tuple(places)],
        sources=sources,
        axes=3 if session.view.family.mrope else 1,
        prepared=torch.stack(prepared) if prepared else None,
    )
    return context, sources


def places_of(session: "Session", units: list[Unit], tokens: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows `[units, 1]` and columns `[units, visual]` of the input at which the tokens of some units stand."""
    rows = torch.tensor([unit.row for unit in units], device=session.alive.device)[:, None]
    columns = [session.layout.columns[unit.row][own] for unit, own in zip(units, tokens, strict=True)]
    return rows, torch.stack(columns)


def _row_slots_count(session: "Session", row: int) -> int:
    return session.row_lengths[row] - session.layout.count(row) + int(session.alive_tokens(row).sum())


def _text_after(session: "Session", row: int) -> int:
    return int((session.text_columns[row] > session.layout.columns[row][-1]).sum())


def _answers(session: "Session", row: int) -> torch.Tensor | None:
    """Columns of the tokens right before an answer, of what is left of a row; None in inference."""
    if session.labels is None:
        return None
    real = session.alive[row] | ~session.layout.visual[row]
    columns = (real if session.valid is None else real & session.valid[row].to(real.device)).nonzero()[:, 0]
    learnt = session.labels[row].to(columns.device)[columns] != NOTHING_TO_LEARN
    return columns[:-1][learnt[1:] & ~learnt[:-1]]


def _entered(session: "Session", layer: int, units: list[Unit]) -> torch.Tensor:
    """`[units, visual then, dim]`, the units' tokens as they entered a watched layer."""
    if layer not in session.watched:
        raise InputError(f"what entered layer {layer} is not known here; it must come before the stage and be watched")
    hidden, slot_of = session.watched[layer]
    states = []
    for unit in units:
        slots = slot_of[unit.row, session.layout.columns[unit.row][unit.tokens]]
        states.append(hidden[unit.row, slots[slots >= 0].sort().values.to(hidden.device)])
    return torch.stack(states)
