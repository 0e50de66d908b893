"""One stage of one strategy: build contexts, ask, check what it answers, and apply it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from seeless.context import Context
from seeless.core.adding import add_tokens, ranks
from seeless.core.answers import Answers
from seeless.core.attention import LayerTap
from seeless.core.checks import WhileAsked, asking, check_decision, count_of, faults_at, layers_of, name_of
from seeless.core.family import ModelView
from seeless.core.groups import Group, Uneven, group_units
from seeless.core.reporting import Before
from seeless.core.session import Session
from seeless.core.transfer import fetch, upload
from seeless.core.units import Layout, Unit
from seeless.decision import Decision, Extend, Merge
from seeless.errors import BudgetError, InputError, StrategyError, UnsupportedModel
from seeless.strategy import MANY, Stage, Strategy
from seeless.tower import UNREAD, Look, Tower, TowerSignal


@dataclass(frozen=True, eq=False)
class PlannedStage:
    """One stage of one strategy: before `layer`, the strategy's `index`-th.

    Args:
        renumber: whether the kept tokens close the gaps in their positions.
        alike: in what rows must be of one size to be asked together; learnt from what the strategy asks for.
    """

    layer: int
    strategy: Strategy
    index: int
    renumber: bool
    alike: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """What the strategy is called."""
        return self.strategy.name or type(self.strategy).__name__

    @property
    def place(self) -> str:
        """Where it acts, in words."""
        return f"stage {self.index}, before layer {self.layer}"

    def units(self, layout: Layout) -> list[Unit]:
        """What its strategy ranks; patches alone if it says so, or reads the tower."""
        return layout.units(self.strategy.scope, self.strategy.patches_only or bool(self.strategy.tower))


@dataclass
class Cut:
    """What the seams need to follow one cut.

    Args:
        order: `[batch, new slots]`, the slot each new slot is taken from; None if none has moved.
        hidden: `[batch, slots, dim]` before that.
        dropped: per row, whether any token has left.
    """

    order: torch.Tensor | None
    hidden: torch.Tensor
    dropped: list[bool]


@dataclass(frozen=True, eq=False)
class Asked:
    """A group of units, what a strategy said of it, what it was told and through what, and how many of each stay
    (None: not known)."""

    group: Group
    said: Any
    answers: Answers
    told: WhileAsked
    count: int | None = None


def plan_stages(strategies: list[Strategy], view: ModelView) -> list[PlannedStage]:
    """All stages in the order of the flow; at the same layer, those of the tower first, else in the order given.

    Raises:
        UnsupportedModel: positions are to be renumbered, but the model's have several axes.
            Or tokens are to leave where later layers take keys and values from.
        BudgetError: several strategies act inside the tower, or one of several has an average.
        StrategyError: what a strategy says of its layers is no list of them.
    """
    stages = []
    parts = [part for given in strategies for part in given.parts()]
    if len(inside := [strategy for strategy in parts if strategy.stage is Stage.TOWER]) > 1:
        raise BudgetError(f"{inside} all act inside the vision tower, where one strategy can merge; give one of them")
    if len(parts) > 1 and (whole := next((strategy for strategy in parts if strategy.average is not None), None)):
        raise BudgetError(
            f"average={whole.average} is of all decoder layers, but {whole.name} is one of {len(parts)} strategies "
            "that act together; give each its keep="
        )
    for strategy in parts:
        if strategy.positions == "renumber" and view.family.mrope:
            raise UnsupportedModel(
                f"positions='renumber' has no meaning on {view.family.title}, whose positions are coordinates of time, "
                "height and width; leave positions out or use 'keep'"
            )
        layers = layers_of(strategy, "layers", view.depth)
        if isinstance(strategy.average, float):  # refuse what no picture could have
            strategy.kept_of(0, MANY, view.depth)
        alike: set[str] = set()
        if (late := max(layers, default=0)) > view.last_cut:
            raise UnsupportedModel(
                f"tokens cannot leave before layer {late} of this {view.family.title} model, whose later layers take "
                f"keys and values of earlier ones; the last layer before which they can is {view.last_cut}"
            )
        for index, layer in enumerate(layers):
            renumber = not view.family.mrope and strategy.positions_at(index) == "renumber"
            stages.append(PlannedStage(layer, strategy, index, renumber, alike))
    return sorted(stages, key=lambda stage: (stage.layer, stage.strategy.stage is not Stage.TOWER))


def tower_reads(stages: Sequence[PlannedStage]) -> frozenset[TowerSignal] | None:
    """What the strategies of some stages may ask of the vision tower; None = anything."""
    found: set[TowerSignal] = set()
    for stage in stages:
        if stage.strategy.keeps_all(stage.index):
            continue
        if (declared := type(stage.strategy).tower) is None:
            return None
        found.update(declared)
    return frozenset(found)


def tower_looks(stages: Sequence[PlannedStage], tower: Tower) -> frozenset[Look]:
    """At what layers of a vision tower the strategies of some stages look.

    Raises:
        UnsupportedModel: the tower is not read, or shows no such thing.
        StrategyError: what a strategy names is no look.
    """
    found: set[Look] = set()
    for stage in stages:
        strategy, declared = stage.strategy, type(stage.strategy).tower
        silent = type(strategy).looks_into is Strategy.looks_into or (declared is not None and "layers" not in declared)
        if silent or strategy.keeps_all(stage.index):
            continue
        if not tower.layers:
            raise UnsupportedModel(UNREAD)
        with asking(strategy, "looks_into"):
            looks = list(strategy.looks_into(tower))
        for look in looks:
            if not (isinstance(look, tuple) and len(look) == 2 and look[0] in ("class", "all", "hidden")):
                raise StrategyError(
                    f"{type(strategy).__name__}.looks_into returned {look!r}; return pairs like ('class', 5), ('all', "
                    "5) or ('hidden', 5), the number being that of a tower layer"
                )
            tower.check(look)
            found.add(look)
    return frozenset(found)


def prepare(session: Session, stages: Sequence[PlannedStage], second: Callable) -> None:
    """Let strategies that prepare something do so, unit by unit, while nothing has been dropped."""
    for strategy in {id(stage.strategy): stage.strategy for stage in stages}.values():
        own = [stage for stage in stages if stage.strategy is strategy]
        if type(strategy).prepare is Strategy.prepare or all(strategy.keeps_all(stage.index) for stage in own):
            continue
        first = replace(own[0], layer=0)
        assert session.embeds is not None
        for asked in _asked(session, first, session.embeds, {}, strategy.prepare, second):
            prepared, units, asked.told.over = asked.said, asked.group.units, True
            if prepared is None:
                continue
            if len(prepared) != len(units):
                raise InputError(
                    f"{type(strategy).__name__}.prepare gave {len(prepared)} entries for {len(units)} units"
                )
            for unit, entry in zip(units, prepared, strict=True):
                session.prepared[_key(strategy, unit)] = entry


def run_stage(session: Session, stage: PlannedStage, hidden: torch.Tensor, taps: dict[int, LayerTap]) -> Cut | None:
    """Ask the strategy about every group of units; None if nothing is to be dropped or changed."""
    strategy = stage.strategy
    if strategy.no_training and session.view.model.training and torch.is_grad_enabled():
        raise UnsupportedModel(f"{strategy.name} cannot be trained under: {strategy.no_training}")
    before, found = list(session.ledger.total), Before(session)
    if strategy.keeps_all(stage.index):
        session.stages.append(found.report(stage.layer, stage.name, before))
        return None
    with torch.no_grad():
        states = session.shown(hidden) if stage.layer == 0 else hidden
        answered = _asked(session, stage, states, taps, partial(_decided, stage))
        for asked in answered:
            _check(session, stage, asked, hidden.dtype)
        counts = _counts(stage, answered)
    cut = _apply(session, stage, answered, counts, hidden, before, found)
    for asked in answered:
        asked.told.over = True
    return cut


def _asked(
    session: Session,
    stage: PlannedStage,
    hidden: torch.Tensor,
    taps: dict[int, LayerTap],
    question: Callable,
    second: Callable | None = None,
) -> list[Asked]:
    """Every group of units with what a method of the strategy says of it."""
    strategy = stage.strategy
    with torch.no_grad():
        units = stage.units(session.prompt.layout)
        counts = session.counts(units)
        pending = group_units(session, units, counts, strategy.one_by_one, stage.alike)
        answered = []
        while pending:
            group = pending.pop(0)
            answers = Answers(session, session.vision.asked_by(strategy), group, hidden, taps, second)
            told = WhileAsked(answers)
            context = _context(session, stage, group, told)
            try:
                with asking(strategy, stage.place if second is None else "before the first layer"):
                    said = question(context)
                count = None if second is not None else count_of(strategy, stage.index, said, context.n_keep)
                answered.append(Asked(group, said, answers, told, count))
            except Uneven as uneven:  # ask again, rows of one size at a time
                told.over = True
                stage.alike.add(uneven.what)
                own = [group.present] * len(group.units)
                pending = group_units(session, group.units, own, False, stage.alike) + pending
    return answered


def _decided(stage: PlannedStage, context: Context) -> Decision:
    """The strategy's decision, of the right kind and shape."""
    decision = stage.strategy.reduce(context)
    check_decision(stage.strategy, decision, context.index.shape)
    return decision


def _context(session: Session, stage: PlannedStage, group: Group, told: WhileAsked) -> Context:
    strategy, unit = stage.strategy, group.units[0]
    keys = [_key(strategy, each) for each in group.units]
    prepared = [session.prepared[key] for key in keys if key in session.prepared]
    answering = session.sizes(unit.row)["answers"]
    return Context(
        layer=stage.layer,
        stage_index=stage.index,
        n_keep=min(strategy.kept_of(stage.index, group.visual, session.view.depth), group.present),
        index=group.index,
        n_original=group.visual,
        grid=unit.grid if group.complete else None,
        answers=answering,
        memory=session.memory[tuple(keys)],
        sources=told,
        axes=3 if session.view.family.mrope else 1,
        frames=_frames(session, group),
        prepared=torch.stack(prepared) if prepared else None,
    )


def _frames(session: Session, group: Group) -> tuple[int, int]:
    """How many frames the units' videos have, and how many tokens or places in its grid one of them has, at most."""
    layout, frames, largest = session.prompt.layout, 1, 1
    for unit in group.units:
        frame = np.maximum(layout.frame(unit.row)[unit.tokens], 0)
        counts = np.bincount(frame)
        frames, largest = max(frames, len(counts)), max(largest, int(counts.max()))
        largest = max(largest, int(layout.patch(unit.row)[unit.tokens].max()) + 1)
    return frames, largest


def _key(strategy: Strategy, unit: Unit) -> tuple:
    return id(strategy), unit.row, int(unit.tokens[0])


def _check(session: Session, stage: PlannedStage, asked: Asked, dtype: torch.dtype) -> None:
    """Refuse what is no decision; what only the values tell is noted for the end of the prefill."""
    strategy, group, decision = stage.strategy, asked.group, asked.said
    if isinstance(decision, Merge) and decision.features == "vision" and (stage.layer > 0 or session.merges):
        raise InputError(
            f"{type(strategy).__name__} merges what the tower gave, which only the first merging stage at the entry "
            "can do; put it first, and before layer 0"
        )
    units = stage.units(session.prompt.layout)

    def unit(number: int) -> str:
        return name_of(units, group.units[number], strategy.scope)

    if asked.count == 0 and not strategy.may_drop_all:
        where = f"{type(strategy).__name__}, {stage.place}, {unit(0)}"
        raise StrategyError(f"{where}: it keeps no token; every unit keeps at least one")
    found = faults_at(strategy, decision, asked.count, dtype)
    session.findings.add(f"{type(strategy).__name__}, {stage.place}", unit, found)


def _counts(stage: PlannedStage, answered: list[Asked]) -> list[list[int]]:
    """How many tokens of each unit of every group stay; asks the device only where a decision does not say."""
    found = fetch({str(i): asked.said.mask.sum(1) for i, asked in enumerate(answered) if asked.count is None})
    return [
        found[str(i)].tolist() if asked.count is None else [asked.count] * len(asked.group.units)
        for i, asked in enumerate(answered)
    ]


def _apply(
    session: Session,
    stage: PlannedStage,
    answered: list[Asked],
    counts: list[list[int]],
    hidden: torch.Tensor,
    before: list[int],
    found: Before,
) -> Cut | None:
    ledger, lengths = session.ledger, session.row.lengths
    alive, device = session.alive.clone(), session.alive.device
    scores: torch.Tensor | None = None
    rank: torch.Tensor | None = None
    merged, dropped = False, [False] * len(before)
    for asked, own in zip(answered, counts, strict=True):
        group, decision = asked.group, asked.said
        rows = group.rows[:, None]
        alive[rows, group.columns] = decision.mask.to(device)
        for unit, n in zip(group.units, own, strict=True):
            dropped[unit.row] |= n < group.present
            ledger.book(unit, group.present, n + (len(decision.new[0]) if isinstance(decision, Extend) else 0))
        if decision.scores is not None:
            scores = torch.full(alive.shape, torch.nan, device=device) if scores is None else scores
            scores[rows, group.columns] = decision.scores.float().to(device)
        if isinstance(decision, Extend):
            rank = ranks(session) if rank is None else rank
            hidden = add_tokens(session, stage, group, decision, own, hidden, rank, alive)
        if isinstance(decision, Merge):
            hidden = _merge(session, decision, asked.answers, own, hidden)
            session.merges.append((rows, group.columns, decision))
            merged = True
    if not stage.strategy.newlines:
        asked_of = [unit for asked in answered for unit in asked.group.units]
        for number in _drop_unranked(session, stage, asked_of, alive):
            dropped[number] = True
    session.alive = alive
    signals = [asked.answers.signal for asked in answered if asked.answers.signal is not None]
    signal = " and ".join(dict.fromkeys(signals)) or None
    read = {layer: own for asked in answered for layer, own in asked.answers.read.items()}
    left = [n - a + b for n, a, b in zip(lengths, before, ledger.total, strict=True)]
    if not any(dropped) and rank is None:
        session.stages.append(found.report(stage.layer, stage.name, before, scores, signal, read))
        return Cut(None, hidden, dropped) if merged else None
    row = session.row
    stays = alive if row.whole else alive.gather(1, row.column)
    if row.valid is not None:
        stays = stays & row.valid
    order, session.row = row.cut(stays, left, stage.renumber, rank)
    session.stages.append(found.report(stage.layer, stage.name, before, scores, signal, read))
    return Cut(order, hidden, dropped)


def _drop_unranked(session: Session, stage: PlannedStage, asked: list[Unit], alive: torch.Tensor) -> list[int]:
    """Visual tokens outside all units, which show no patch, leave with what was `asked` of their picture, but not where
    they are all that is left of it; in which rows any did."""
    layout = session.prompt.layout
    ranked, outside = ([np.zeros(len(own), dtype=bool) for own in layout.columns] for _ in range(2))
    for unit in asked:
        ranked[unit.row][unit.tokens] = True
    for row, pictures in enumerate(layout.images):
        for picture in pictures:
            outside[row][picture.tokens] = ranked[row][picture.tokens].any()
    for unit in stage.units(layout):
        outside[unit.row][unit.tokens] = False
    units = [Unit(row, np.flatnonzero(own), None) for row, own in enumerate(outside) if own.any()]
    left = session.counts(units)
    units, left = [u for u, n in zip(units, left, strict=True) if n], [n for n in left if n]
    if units:
        rows = np.concatenate([np.full(len(unit.tokens), unit.row) for unit in units])
        columns = np.concatenate([layout.columns_of(unit) for unit in units])
        places = upload([rows, columns], alive.device)
        alive[places[0], places[1]] = False
    for unit, n in zip(units, left, strict=True):
        session.ledger.book(unit, n, 0)
    return [unit.row for unit in units]


def _merge(session: Session, merge: Merge, answers: Answers, counts: list[int], hidden: torch.Tensor) -> torch.Tensor:
    """`hidden` with the merged tokens of a group of units in it."""
    group = answers.group
    rows, slots = group.rows[:, None].to(hidden.device), group.slots.to(hidden.device)
    if merge.features == "hidden" or not session.view.family.projected:
        return hidden.index_put((rows, slots), merge.values(hidden[rows, slots]))
    kept = merge.mask.byte().argsort(dim=1, descending=True, stable=True)[:, : max(counts)]
    values = answers.merged_features(merge)
    taken = values.gather(1, kept.to(values.device)[..., None].expand(-1, -1, values.shape[-1]))
    new = session.view.projector(taken.flatten(0, 1)).view(*kept.shape, -1).to(hidden)
    kept = kept.to(hidden.device)
    receives = (merge.mask & merge.receives).to(hidden.device).gather(1, kept)
    places = slots.gather(1, kept)
    return hidden.index_put((rows, places), torch.where(receives[..., None], new, hidden[rows, places]))
