"""One prefill: at every stage build a context, ask the strategy, apply its decision, add it to the report."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from transformers.cache_utils import Cache

from seeless.context import Context, Memory
from seeless.core.adding import add_tokens, ranks
from seeless.core.asking import context_of, group_units, places_of
from seeless.core.cache import CacheRecord, Span, cached_length, trim
from seeless.core.checks import Findings, asking, check_decision, faults_at, name_of
from seeless.core.family import ModelView
from seeless.core.positions import TokenRow
from seeless.core.taps import GroupSources, LayerTap
from seeless.core.units import Layout, Unit
from seeless.core.vision import Vision
from seeless.decision import Decision, Extend, Merge
from seeless.errors import BudgetError, InputError, UnsupportedModel
from seeless.report import StageReport
from seeless.strategy import Strategy, TowerStrategy


@dataclass(frozen=True, eq=False)
class PlannedStage:
    """One stage of one strategy: before `layer`, the strategy's `index`-th.

    Args:
        renumber: whether the kept tokens close the gaps in their positions.
    """

    layer: int
    strategy: Strategy
    index: int
    renumber: bool


def plan_stages(strategies: list[Strategy], view: ModelView) -> list[PlannedStage]:
    """All stages in the order of the flow; at the same layer, those of the tower first, else in the order given.

    Raises:
        UnsupportedModel: positions are to be renumbered, but the model's have several axes.
        BudgetError: several strategies act inside the tower.
    """
    stages = []
    parts = [part for given in strategies for part in given.parts()]
    if len(inside := [strategy for strategy in parts if isinstance(strategy, TowerStrategy)]) > 1:
        raise BudgetError(f"{inside} all act inside the vision tower, where one strategy can merge; give one of them")
    for strategy in parts:
        positions = strategy.positions or ("keep" if view.family.mrope else strategy.own_positions)
        if positions == "renumber" and view.family.mrope:
            raise UnsupportedModel(
                f"positions='renumber' has no meaning on {view.family.title}, whose positions are coordinates of time, "
                "height and width; leave positions out or use 'keep'"
            )
        for index, layer in enumerate(strategy.layers(view.depth)):
            stages.append(PlannedStage(layer, strategy, index, positions == "renumber"))
    return sorted(stages, key=lambda stage: (stage.layer, not isinstance(stage.strategy, TowerStrategy)))


@dataclass
class Cut:
    """Everything the seams need to follow one cut."""

    order: torch.Tensor
    hidden: torch.Tensor


@dataclass
class Session:
    """State of one prefill, from the entry of the language model to its exit.

    Args:
        valid: `[batch, seq]` bool without the padding of the input, None if there is none.
        record: of the reduced cache this forward continues, if it does.
        past_mask: `[batch, past]` bool of the input's 2-D attention mask, None = all ones.
        conversation: tokens cached before this forward, dropped ones included.
        labels: `[batch, seq]` in training on answers, -100 = nothing to be learnt; else None.
        ids: `[batch, seq]`, the input; None if it came as embeddings.
        blocks: `[batch, seq]`, tokens of one block (0 and up) see each other both ways; None = plainly causal.
        whole: the row of all tokens; `row` is this very one while none has left.
        watched: per layer, what entered it, and the slots of all columns then.
        uninjected: `[batch, slots, dim]` as the last layer gave it, if visual features were added to that since.
        added: how many tokens were added so far.
        second_runs: (row, tokens, decoder layers) of second prompts that were run.
        seen, held: from which layer on which tokens are seen, and held in the cache.
        prepared: what a strategy prepared for a unit, by the strategy and the unit's row and first token.
    """

    view: ModelView
    layout: Layout
    vision: Vision
    valid: torch.Tensor | None
    embeds: torch.Tensor
    record: CacheRecord | None
    cache: Cache | None
    past_mask: torch.Tensor | None
    conversation: int
    blocks: torch.Tensor | None
    labels: torch.Tensor | None
    ids: torch.Tensor | None
    second_runs: list[tuple[int, int, int]] = field(default_factory=list)
    stages: list[StageReport] = field(default_factory=list)
    seen: dict[int, TokenRow] = field(default_factory=dict)
    held: dict[int, TokenRow] = field(default_factory=dict)
    memory: dict[tuple, Memory] = field(default_factory=lambda: defaultdict(Memory))
    prepared: dict[tuple, torch.Tensor] = field(default_factory=dict)
    merges: list[tuple[torch.Tensor, torch.Tensor, Merge]] = field(default_factory=list)
    watched: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    uninjected: torch.Tensor | None = None
    added: int = 0

    def __post_init__(self) -> None:
        batch, self.length = self.embeds.shape[:2]
        device = self.layout.visual.device
        self.row = self.whole = TokenRow.full(batch, self.length, self.valid, device)
        self.seen[0] = self.held[0] = self.row
        self.alive = torch.ones(batch, self.length, dtype=torch.bool, device=device)
        real = torch.ones_like(self.alive) if self.valid is None else self.valid.to(device)
        self.text_columns, self.row_lengths = [], real.sum(1).tolist()
        for row in range(batch):
            text = (real[row] & ~self.layout.visual[row]).nonzero()[:, 0]
            self.text_columns.append(text)
        self.past = {i: cached_length(self.cache, i) for i in range(self.view.depth)}

    def use_cache(self, cache: Cache | None) -> None:
        """The model may make its cache only after the entry; layers hand it over."""
        self.cache = cache if self.cache is None else self.cache

    def past_valid(self, layer: int) -> torch.Tensor | None:
        """Which tokens cached before this forward are real, `[batch, past]`; None = all."""
        past = self.past[layer]
        if past == 0:
            return None
        valid = self.record.span(layer).valid if self.record is not None else None
        known = 0 if valid is None else valid.shape[1]
        tail = None if self.past_mask is None else self.past_mask[:, self.past_mask.shape[1] - (past - known) :]
        if valid is None:
            return tail
        ones = torch.ones(len(valid), past - known, dtype=torch.bool, device=valid.device)
        return torch.cat([valid, ones if tail is None else tail.to(valid.device)], 1)

    def watch(self, layer: int, hidden: torch.Tensor) -> None:
        """Remember what enters a layer."""
        self.watched[layer] = hidden.detach(), self.row.slot_of(self.length)

    def blocks_of(self, row: TokenRow) -> torch.Tensor | None:
        """`blocks` of the tokens of a row, `[batch, slots]`."""
        return None if self.blocks is None else self.blocks.to(row.column.device).gather(1, row.column)

    @torch.no_grad()
    def prepare(self, stages: list[PlannedStage], second: Callable) -> None:
        """Let strategies that prepare something do so, unit by unit, while nothing has been dropped."""
        slot_of = self.row.slot_of(self.length)
        for strategy in {id(stage.strategy): stage.strategy for stage in stages}.values():
            own = [stage for stage in stages if stage.strategy is strategy]
            if type(strategy).prepare is Strategy.prepare or all(strategy.keeps_all(stage.index) for stage in own):
                continue
            units = self.layout.units(strategy.scope)
            for group in group_units(self, units, [unit.tokens for unit in units], strategy.one_by_one):
                members = [units[i] for i in group]
                first = replace(own[0], layer=0)
                tokens = [unit.tokens for unit in members]
                context, _ = context_of(self, first, members, tokens, slot_of, self.embeds, {}, second)
                with asking(strategy, "before the first layer"):
                    prepared = strategy.prepare(context)
                if prepared is None:
                    continue
                if len(prepared) != len(members):
                    raise InputError(
                        f"{type(strategy).__name__}.prepare gave {len(prepared)} entries for {len(members)} units"
                    )
                for unit, entry in zip(members, prepared, strict=True):
                    self.prepared[id(strategy), unit.row, int(unit.tokens[0])] = entry

    def run_stage(self, stage: PlannedStage, hidden: torch.Tensor, taps: dict[int, LayerTap]) -> Cut | None:
        """Ask the strategy about every group of units; None if nothing is to be dropped or changed."""
        if stage.strategy.no_training and self.view.model.training and torch.is_grad_enabled():
            raise UnsupportedModel(f"{stage.strategy.name} cannot be trained under: {stage.strategy.no_training}")
        if stage.strategy.keeps_all(stage.index):
            self.stages.append(self._stage_report(stage, self.alive, None, None))
            return None
        with torch.no_grad():
            slot_of = self.row.slot_of(self.length)
            units = self.layout.units(stage.strategy.scope)
            tokens = [self._present(unit, slot_of) for unit in units]
            decisions, signal = [], None
            for group in group_units(self, units, tokens, stage.strategy.one_by_one):
                members = [units[i] for i in group], [tokens[i] for i in group]
                context, sources = context_of(self, stage, *members, slot_of, hidden, taps)
                called = partial(name_of, units, group, stage.strategy.scope)
                decisions.append((group, self._decide(stage, context, hidden, called), sources))
                signal = sources.signal or signal
        return self._apply(stage, units, tokens, decisions, slot_of, hidden, signal)

    def _present(self, unit: Unit, slot_of: torch.Tensor) -> torch.Tensor:
        """The unit's tokens that are left, in the order of their slots."""
        tokens = unit.tokens[self.alive_tokens(unit.row)[unit.tokens]]
        if self.row.token is None:
            return tokens
        return tokens[slot_of[unit.row, self.layout.columns[unit.row][tokens]].argsort()]

    def alive_tokens(self, row: int) -> torch.Tensor:
        """`[visual]` bool over the row's original visual tokens."""
        return self.alive[row, self.layout.columns[row]]

    def _decide(
        self, stage: PlannedStage, context: Context, hidden: torch.Tensor, unit: Callable[[int], str]
    ) -> Decision:
        strategy, where = stage.strategy, f"stage {stage.index}, before layer {stage.layer}"
        findings = Findings()
        with asking(strategy, where):
            decision = strategy.reduce(context)
            check_decision(strategy, decision, context.index.shape)
            found = faults_at(strategy, stage.index, decision, context.n_keep, hidden.dtype)
            findings.add(f"{type(strategy).__name__}, {where}", unit, found)
        findings.check()
        if isinstance(decision, Merge) and decision.features == "vision" and (stage.layer > 0 or self.merges):
            raise InputError(
                f"{type(strategy).__name__} merges what the tower gave, which only the first merging stage at the "
                "entry can do; put it first, and before layer 0"
            )
        return decision

    def _apply(
        self,
        stage: PlannedStage,
        units: list[Unit],
        tokens: list[torch.Tensor],
        decisions: list[tuple[list[int], Decision, GroupSources]],
        slot_of: torch.Tensor,
        hidden: torch.Tensor,
        signal: str | None,
    ) -> Cut | None:
        before = self.alive.clone()
        covered = torch.zeros_like(self.alive)
        scores = torch.full(self.alive.shape, torch.nan, device=self.alive.device)
        scored, merged, rank = False, False, None
        for group, decision, sources in decisions:
            rows, columns = places_of(self, [units[i] for i in group], [tokens[i] for i in group])
            self.alive[rows, columns] = decision.mask.to(self.alive.device)
            covered[rows, columns] = True
            if decision.scores is not None:
                scores[rows, columns] = decision.scores.float().to(scores.device)
                scored = True
            if isinstance(decision, Extend):
                rank = ranks(self) if rank is None else rank
                hidden = add_tokens(self, stage, rows, columns, decision, slot_of, hidden, rank)
            if isinstance(decision, Merge):
                hidden = self._merge(decision, sources, hidden)
                self.merges.append((rows, columns, decision))
                merged = True
        if not stage.strategy.newlines:  # visual tokens outside all units show no patch
            self.alive &= covered | ~self.layout.visual
        self.stages.append(self._stage_report(stage, before, scores if scored else None, signal))
        if bool((self.alive == before).all()) and rank is None:
            everything = torch.arange(hidden.shape[1], device=hidden.device).expand(len(hidden), -1)
            return Cut(everything, hidden) if merged else None
        stays = self.alive.gather(1, self.row.column)
        if self.row.valid is not None:
            stays &= self.row.valid
        order, self.row = self.row.cut(stays, stage.renumber, rank)
        return Cut(order, hidden)

    def _originals(self, row: int) -> torch.Tensor:
        """Which of a row's original visual tokens are left, ascending; added ones are none of them."""
        columns = self.layout.columns[row]
        alive = self.alive[row, columns].nonzero()[:, 0]
        if self.row.token is None:
            return alive
        return alive[self.row.token[row, self.row.slot_of(self.length)[row, columns[alive]]] < self.length]

    def _merge(self, merge: Merge, sources: GroupSources, hidden: torch.Tensor) -> torch.Tensor:
        """`hidden` with the merged tokens of a group of units in it."""
        rows, slots = sources.rows[:, None].to(hidden.device), sources.slots.to(hidden.device)
        if merge.features == "hidden" or not self.view.family.projected:
            return hidden.index_put((rows, slots), merge.values(hidden[rows, slots]))
        new = merge.mask & merge.receives
        values = self.view.projector(sources.merged_features(merge)[new])
        new = new.to(hidden.device)
        return hidden.index_put((rows.expand_as(slots)[new], slots[new]), values.to(hidden))

    def _stage_report(
        self, stage: PlannedStage, before: torch.Tensor, scores: torch.Tensor | None, signal: str | None
    ) -> StageReport:
        kept, ranked = [], []
        for row, columns in enumerate(self.layout.columns):
            kept.append(self._originals(row))
            if scores is not None:
                own = columns[before[row, columns]]
                if self.row.token is not None:
                    own = own[self.row.slot_of(self.length)[row, own].argsort()]
                ranked.append(scores[row, own])
        return StageReport(
            layer=stage.layer,
            strategy=stage.strategy.name or type(stage.strategy).__name__,
            kept=kept,
            scores=ranked if scores is not None else None,
            n_before=[int(before[row, columns].sum()) for row, columns in enumerate(self.layout.columns)],
            n_after=[int(self.alive[row, columns].sum()) for row, columns in enumerate(self.layout.columns)],
            signal=signal,
        )

    def after_cut(self, layer: int, past: str) -> None:
        """Note that layers from `layer` on see the new row; with `past="trim"`, cut the caches before it, too."""
        self.seen[layer] = self.held[layer] = self.row
        if past == "trim" and self.cache is not None:
            for before in range(layer):
                held = self.at(self.held, before)
                order = held.slot_of_token(self.length + self.added).gather(1, self.row.tokens)
                trim(self.cache, before, self.past[before], order)
            for first in [first for first in self.held if first < layer]:
                self.held[first] = self.row

    @staticmethod
    def at(rows: dict[int, TokenRow], layer: int) -> TokenRow:
        """The row in force at a layer."""
        return rows[max(first for first in rows if first <= layer)]

    def lowered(self, layer: int, now: torch.Tensor | None) -> torch.Tensor | None:
        """By how much positions are lowered at a layer: `now` here, and what earlier turns left; None = 0."""
        before = self.record.span(layer).closed if self.record is not None else None
        return now if before is None else before if now is None else now + before

    def mask(self, layer: int, row: TokenRow) -> torch.Tensor | None:
        """2-D attention mask `[batch, past + slots]` over what a layer will have cached; None = all visible."""
        before, now, batch = self.past_valid(layer), row.valid, len(row.column)
        if before is None and now is None:
            return None
        device = row.column.device
        if before is None:
            before = torch.ones(batch, self.past[layer], dtype=torch.bool, device=device)
        if now is None:
            now = torch.ones_like(row.column, dtype=torch.bool)
        return torch.cat([before.to(device), now], 1)

    def spans(self) -> list[Span]:
        """What the cache holds after this forward, layer range by layer range."""
        firsts = {first for first in self.seen if first < self.view.depth}
        firsts |= {span.first for span in self.record.spans} if self.record is not None else set()
        spans: list[Span] = []
        for first in sorted(firsts):
            held, seen = self.at(self.held, first), self.at(self.seen, first)
            closed = self.lowered(first, seen.closed_after)
            span = Span(first, self.past[first] + held.column.shape[1], self.mask(first, held), closed)
            if not spans or not spans[-1].same_as(span):
                spans.append(span)
        return spans
