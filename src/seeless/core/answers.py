"""What a strategy's `Context` answers for a group of units."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch

from seeless.context import Onto, Queries, Tokens
from seeless.core.attention import LayerTap
from seeless.core.groups import Group
from seeless.core.question_answers import QuestionAnswers
from seeless.core.session import Session
from seeless.core.transfer import upload
from seeless.core.vision_table import Vision
from seeless.errors import InputError, StrategyError, UnsupportedModel

ROWS_AT_ONCE = 32

NO_NULL_TOKEN = (
    "the whole prompt of this model sees itself, so no token after the image is blind to the question "
    "and there is no null token whose attention could be read"
)
NO_TEXT = "no token follows the image, so there is no text whose attention could be read"


class Answers(QuestionAnswers):
    """Answers a `Context` for the units of one group.

    Args:
        vision: what the strategy may know of the tower.
        hidden: `[batch, slots, dim]` at this stage.
        taps: decoder layers whose attention may be read.
        second: runs a second prompt around the images of a row; None once layers are running.
    """

    def __init__(
        self,
        session: Session,
        vision: Vision,
        group: Group,
        hidden: torch.Tensor,
        taps: dict[int, LayerTap],
        second: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        super().__init__(session, vision, group)
        self.taps, self.run_second = taps, second
        self.states = hidden
        self.read: dict[int, int] = {}  # decoder layers that were asked for, and those that stood for them

    # Hidden states and embeddings.

    def _at(self, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """`x` `[batch, seq, ...]` at `slots` `[units, some]` of the units' rows."""
        return x.detach()[self.group.rows.to(x.device)[:, None], slots.to(x.device)]

    @cached_property
    def _text_columns(self) -> torch.Tensor:
        """`[units, text]`, columns of the text behind the images."""
        self.group.need_alike("text")
        return self.group.host([self.session.prompt.text_after_images(unit.row) for unit in self.group.units])

    def _slots_of(self, columns: torch.Tensor) -> torch.Tensor:
        session = self.session
        return session.row.at(self.group.rows[:, None], columns, session.prompt.length)

    @cached_property
    def _row_slots(self) -> torch.Tensor:
        """`[units, seq]`, all slots of the units' rows."""
        self.group.need_alike("row")
        return self.group.host([self.session.row_slots(unit.row) for unit in self.group.units])

    def visual(self) -> torch.Tensor:
        return self._at(self.states, self.group.slots)

    def hidden(self) -> torch.Tensor:
        return self._at(self.states, self._row_slots)

    def uninjected(self) -> torch.Tensor:
        before = self.session.uninjected
        return self._at(self.states if before is None else before, self._row_slots)

    def text(self) -> torch.Tensor:
        return self._at(self.states, self._slots_of(self._text_columns))

    def _embeds(self, columns: torch.Tensor) -> torch.Tensor:
        assert self.session.embeds is not None
        return self._at(self.session.embeds, columns)

    def embeds(self) -> torch.Tensor:
        self._check_unmoved()
        return self._embeds(self.group.columns)

    def text_embeds(self) -> torch.Tensor:
        return self._embeds(self._text_columns)

    def row_embeds(self) -> torch.Tensor:
        self._check_unmoved()
        return self._embeds(self._at(self.session.row.column, self._row_slots))

    def places(self) -> torch.Tensor:
        return torch.searchsorted(self._row_slots, self.group.slots)

    def entering(self, layer: int) -> torch.Tensor:
        session, group = self.session, self.group
        if layer not in session.watched:
            raise StrategyError(
                f"what entered layer {layer} is not known here; it must come before the stage and be watched"
            )
        hidden, row, ledger = session.watched[layer]
        slots = row.at(group.rows[:, None], group.original, session.prompt.length)
        counts = {ledger.count(unit) for unit in group.units}
        if len(counts) > 1 or None in counts:
            raise StrategyError(f"units of unequal size entered layer {layer}; set one_by_one to be asked one by one")
        left = group.visual - (counts.pop() or 0)
        return self._at(hidden, slots.sort(dim=1).values[:, left:])

    # Attention of the decoder.

    def _tap(self, layer: int) -> LayerTap:
        if layer >= 0:
            self.session.view.attention_layer(layer)
        if layer not in self.taps:
            has = ", ".join(map(str, sorted(self.taps))) or "none (the entry comes before all layers)"
            raise StrategyError(f"attention of decoder layer {layer} cannot be read at this stage; available: {has}")
        self.read[layer] = self.taps[layer].layer
        return self.taps[layer]

    def _queries(self, queries: Queries, average: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Slots `[units, queries]` of the rows that ask, and the share `[units, queries]` of each in an average; None:
        all alike."""
        session, units = self.session, self.group.units
        prompt = session.prompt
        if isinstance(queries, torch.Tensor):
            own, asked = self._row_slots, queries.to(self.group.rows.device)
            asking = len(session.asking_slots(units[0].row))
            return own[:, torch.where(asked < 0, asked + asking, asked)], None
        if queries == "last":
            return self._carried([prompt.columns_asking(unit.row)[-1:] for unit in units]), None
        if queries == "text":
            columns = [prompt.text_after_images(unit.row) for unit in units]
            if not all(map(len, columns)):
                raise InputError(NO_TEXT)
            return self._some(columns, "text", average)
        if queries == "anchor":
            if session.view.family.prefix:
                raise UnsupportedModel(NO_NULL_TOKEN)
            step = session.view.family.anchor
            after = [prompt.text(u.row, int(prompt.layout.columns[u.row][u.tokens[-1]])) for u in units]
            if not all(len(own) > step for own in after):
                raise InputError("no token follows the image, so there is no null token whose attention could be read")
            return self._slots_of(self.group.host([own[step : step + 1] for own in after])), None
        if queries == "answers":
            if prompt.answers is None or not all(len(prompt.answers[unit.row]) for unit in units):
                raise InputError("no labels mark an answer here; queries='answers' is for training on answers")
            return self._carried([prompt.answers[unit.row] - 1 for unit in units]), None
        raise StrategyError(f"queries={queries!r} is not possible; use 'last', 'text', 'anchor' or a tensor of rows")

    def _carried(self, columns: list[np.ndarray]) -> torch.Tensor:
        """Slots of some columns, or of the last kept token before them."""
        session, own = self.session, self.group.host(columns)
        if session.row.whole:
            return own
        return session.row.last_kept(session.prompt.length)[self.group.rows[:, None], own]

    def _some(self, columns: list[np.ndarray], what: str, average: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Slots of unequally many columns of each unit: as they are where an average is asked for, else in need of
        groups of one size."""
        counts = [len(own) for own in columns]
        if len(set(counts)) == 1 or not average:
            self.group.need_alike(what)
            return self._slots_of(self.group.host(columns)), None
        padded = [np.pad(own, (0, max(counts) - len(own)), mode="edge") for own in columns]
        share = torch.arange(max(counts), device=self.group.rows.device) < self.group.host(
            [np.array([n]) for n in counts]
        )
        return self._slots_of(self.group.host(padded)), share / share.sum(1, keepdim=True)

    def _sight(self, tap: LayerTap, causal: bool = True) -> Callable[[torch.Tensor], torch.Tensor]:
        """Tells which keys `[units, queries, keys]` rows at some slots `[units, queries]` see in a layer."""
        session, device, past = self.session, tap.device, tap.past
        rows = self.group.rows.to(device)
        valid, blocks = session.mask(tap.layer, session.row), session.blocks_of(session.row)
        blocks = blocks if session.view.sees_both_ways(tap.layer) else None
        window = session.view.window if session.beyond and session.view.slides(tap.layer) else None
        places = None if window is None else session.places(tap.layer, session.row)
        keys = past + tap.slots  # the last of what the layer has counted
        valid, places = (None if x is None else x[:, -keys:].to(device)[rows] for x in (valid, places))
        key_index = torch.arange(keys, device=device)

        def seen_from(some: torch.Tensor) -> torch.Tensor:
            visible = key_index <= past + some[..., None] if causal else torch.ones_like(key_index <= some[..., None])
            if blocks is not None:
                block = blocks.to(device)[rows]
                own = block.gather(1, some)[..., None]
                together = (own == block[:, None]) & (own >= 0)
                visible[..., past:] |= together
            if window is not None and places is not None:
                visible = visible & (places[:, None] > places.gather(1, past + some)[..., None] - window)
                if blocks is not None and session.view.family.prefix:
                    visible[..., past:] |= together
            return visible if valid is None else visible & valid[:, None]

        return seen_from

    def visible(self, queries: Queries, layer: int) -> torch.Tensor:
        tap, group = self._tap(layer), self.group
        slots, _ = self._queries(queries, False)
        seen = self._sight(tap)(slots.to(tap.device))
        return seen.gather(2, (tap.past + group.slots.to(tap.device))[:, None].expand(-1, seen.shape[1], -1))

    def attention(
        self, queries: Queries, layer: int, average: bool, onto: Onto = "visual", causal: bool = True
    ) -> torch.Tensor:
        tap, (slots, share) = self._tap(layer), self._queries(queries, average)
        tap.ask(self.group.rows, slots)
        call, unchecked = tap.call, tap.call.output is not None
        told = self._read(tap, slots, share, average, onto, causal)
        if unchecked and call.output is None:  # compared just now; what is told is made as it ever is after
            tap.ask(self.group.rows, slots)
            if tap.call is not call:
                told = self._read(tap, slots, share, average, onto, causal)
        return told

    def _read(
        self, tap: LayerTap, slots: torch.Tensor, share: torch.Tensor | None, average: bool, onto: Onto, causal: bool
    ) -> torch.Tensor:
        group = self.group
        rows, slots = group.rows.to(tap.device), slots.to(tap.device)
        columns = tap.past + (group.slots if onto == "visual" else self._row_slots).to(tap.device)
        seen_from = self._sight(tap, causal)
        parts = []
        step = max(1, ROWS_AT_ONCE * len({unit.row for unit in group.units}) // len(group.units))  # units share rows
        for start in range(0, slots.shape[1], step):
            some = slots[:, start : start + step]
            visible = seen_from(some)
            part = tap.attention(rows, some, visible, columns, group.together, check=causal)
            if average and share is not None:
                part = (part * share[:, None, start : start + step, None].to(part)).sum(2, keepdim=True)
            elif average:
                part = part.sum(2, keepdim=True) / slots.shape[1]
            parts.append(part)
        whole = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        return whole.sum(2, keepdim=True) if average and len(parts) > 1 else whole

    def second(
        self, before: Sequence[int], between: Sequence[int], after: Sequence[int], layers: Sequence[int]
    ) -> torch.Tensor:
        if self.run_second is None:
            raise StrategyError("a second prompt can only be run before the first layer; call ctx.second in `prepare`")
        run, places = self.run_second, upload([unit.tokens for unit in self.group.units], self.group.rows.device)
        rows = [unit.row for unit in self.group.units]
        found = [run(row, before, between, after, layers)[..., own] for row, own in zip(rows, places, strict=True)]
        return torch.stack(found)

    def rope_bias(self, queries: Queries, layer: int) -> torch.Tensor:
        tap, group = self._tap(layer), self.group
        rows, slots, onto = (x.to(tap.device) for x in (group.rows, self._queries(queries, False)[0], group.slots))
        return tap.rope_bias(rows, slots, onto, self.session.view.frequencies(layer))

    def keys(self, layer: int, tokens: Tokens) -> torch.Tensor:
        tap = self._tap(layer)
        slots = self._slots_of(self._text_columns) if tokens == "text" else self.group.slots
        return self._at(tap.keys.transpose(1, 2), tap.past + slots).transpose(1, 2)

    def normed(self, tokens: Tokens) -> torch.Tensor:
        hidden = self.text() if tokens == "text" else self.visual()
        return self.session.view.final_norm(hidden).to(hidden.device)
