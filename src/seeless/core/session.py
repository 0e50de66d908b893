"""State of one prefill, from the entry of the language model to its exit: which tokens are left, layer by layer."""

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from seeless.context import Memory
from seeless.core.cache import CacheRecord, Keeper, Span, cached_keys, is_static, trim
from seeless.core.checks import Findings
from seeless.core.family import ModelView
from seeless.core.ledger import Ledger
from seeless.core.masks import causal_mask, of_all_layers
from seeless.core.past import Past
from seeless.core.positions import TokenRow
from seeless.core.prompt import Prompt
from seeless.core.recurrent import check_row, runs_over_padding
from seeless.core.transfer import fetch, upload
from seeless.core.units import Unit
from seeless.core.vision_table import Vision
from seeless.core.visual_columns import VisualColumns
from seeless.decision import Merge
from seeless.report import StageReport

if TYPE_CHECKING:
    from seeless.core.injection import Injection


class Session:
    """One prefill.

    Attributes:
        beyond: whether some of the conversation is out of a window's reach, so that masks need `places`.
        row: the tokens that are left now, all of them at first.
        alive: `[batch, seq]` bool, the same over the columns of the input; text is alive throughout.
        seen, held: from which layer on which tokens are seen, and held in the cache.
        ledger: how many visual tokens are left.
        findings: what is wrong with decisions, on the device.
        memory: of strategies, by the units it belongs to; `prepared`: what they prepared, by strategy and unit.
        merges: what was merged at the entry or later: rows, columns and the decision.
        watched: per layer, what entered it, and the row and the ledger then.
        injection: visual features that enter between layers, if there are some.
        valid: `[batch, seq]` bool, False on padding of the input; None if there is none.
        uninjected: `[batch, slots, dim]` as the last layer gave it, if visual features were added to that since.
        entered: what entered the first layer, chunk by chunk, if visual features were added to it there.
        added: how many tokens were added so far.
        layer_inputs: whether layers take something of their own for every token.
        self_check: whether attention that is read for the first time is compared with the model's own.
        second_runs: (row, tokens, decoder layers) of second prompts that were run.
        chunk: first slot and end of those that the decoder takes in now; None: all.
    """

    def __init__(
        self,
        view: ModelView,
        prompt: Prompt,
        vision: Vision,
        embeds: torch.Tensor,
        valid: torch.Tensor | None,
        blocks: torch.Tensor | None,
        past: Past,
        self_check: bool = True,
    ) -> None:
        self.view, self.prompt, self.vision, self.past = view, prompt, vision, past
        self.beyond = view.reaches(past.tokens + prompt.length)
        self.self_check = self_check
        self.embeds: torch.Tensor | None = embeds
        self.blocks, self.number_bytes, self.valid = blocks, embeds.element_size(), valid
        self.row = TokenRow.full(prompt.lengths(), prompt.length, valid, embeds.device)
        self.alive = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        self.seen, self.held = {0: self.row}, {0: self.row}
        self.ledger = Ledger([len(own) for own in prompt.layout.columns])
        self.stages: list[StageReport] = []
        self.findings = Findings()
        for tap in vision.taps:
            if tap.merged is not None:
                self.findings.extend(tap.merged.findings)
        self.memory: dict[tuple, Memory] = defaultdict(Memory)
        self.prepared: dict[tuple, torch.Tensor] = {}
        self.merges: list[tuple[torch.Tensor, torch.Tensor, Merge]] = []
        self.watched: dict[int, tuple[torch.Tensor, TokenRow, Ledger]] = {}
        self.injection: Injection | None = None
        self.uninjected: torch.Tensor | None = None
        self.entered: list[torch.Tensor] = []
        self.added = 0
        self.layer_inputs = False
        self.second_runs: list[tuple[int, int, int]] = []
        self.chunk: tuple[int, int] | None = None
        self._places: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}
        lengths = prompt.lengths()
        self._answering = [n - len(prompt.columns_asking(row)) for row, n in enumerate(lengths)]
        self._text = [len(prompt.text_after_images(row)) if len(own) else 0 for row, own in self._columns()]

    def asking_slots(self, row: int) -> np.ndarray:
        """Those of a row that belong to its prompt."""
        slots = self.row_slots(row)
        return slots[: len(slots) - self._answering[row]]

    def _columns(self) -> enumerate:
        return enumerate(self.prompt.layout.columns)

    # What the host knows.

    @cached_property
    def _questions(self) -> list[bytes]:
        """Per row, the text after its images; equal where the same is asked."""
        ids, rows = self.prompt.ids, range(self.prompt.batch)
        if ids is None:
            return [b""] * len(rows)
        return [ids[row, self.prompt.text_after_images(row)].tobytes() if self._text[row] else b"" for row in rows]

    def sizes(self, row: int) -> dict[str, Any]:
        """In what rows may differ: tokens now and behind the prompt, text after the images and which, answers (None:
        unknown)."""
        answers = self.prompt.answers
        return {
            "row": (self.row.lengths[row], self._answering[row]),
            "text": self._text[row],
            "question": self._questions[row],
            "answers": None if answers is None else len(answers[row]),
        }

    def row_slots(self, row: int) -> np.ndarray:
        """Slots of a row that are no padding."""
        if self.row.whole:
            return self.prompt.columns(row)
        return np.arange(self.row.slots - self.row.lengths[row], self.row.slots)

    def uploaded(self, units: list[Unit]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows `[units]` and columns `[units, visual]` of the original tokens of units of equal size."""
        key = tuple(map(id, units))
        if key not in self._places:
            columns = np.stack([self.prompt.layout.columns_of(unit) for unit in units])
            rows, places = upload([np.array([unit.row for unit in units]), columns], self.alive.device)
            self._places[key] = rows, places
        return self._places[key]

    def counts(self, units: list[Unit]) -> list[int]:
        """Tokens of every unit that are left; asks the device only where units cut across earlier ones."""
        counts = [self.ledger.count(unit) for unit in units]
        unknown = [i for i, count in enumerate(counts) if count is None]
        if unknown:
            alive = {
                str(i): self.alive[
                    units[i].row, upload([self.prompt.layout.columns_of(units[i])], self.alive.device)[0]
                ].sum()
                for i in unknown
            }
            for i, count in fetch(alive).items():
                counts[int(i)] = int(count)
        return [count or 0 for count in counts]

    def shown(self, hidden: torch.Tensor) -> torch.Tensor:
        """What strategies at the entry see of the embeddings `[batch, slots, dim]` of what is left."""
        return hidden if self.injection is None else self.injection.shown(self, hidden)

    # What has been cached, and what will be.

    def watch(self, layer: int, hidden: torch.Tensor) -> None:
        """Remember what enters a layer."""
        self.watched[layer] = hidden.detach(), self.row, self.ledger.copy()

    def release(self) -> None:
        """Let go of states that only stages read, after the last of them."""
        self.embeds = None
        self.watched.clear()

    def blocks_of(self, row: TokenRow) -> torch.Tensor | None:
        """`blocks` of the tokens of a row, `[batch, slots]`."""
        return None if self.blocks is None else self.blocks.to(row.column.device).gather(1, row.column)

    def places(self, layer: int, row: TokenRow) -> torch.Tensor | None:
        """Where in the conversation, dropped tokens counted, everything stands that a layer will have counted, `[batch,
        past + slots]`; None where no layer has a window."""
        if self.view.window is None:
            return None
        before = self.past.places(layer, row.column.device)
        return torch.cat([before.expand(len(row.lengths), -1), self.past.tokens + row.places], 1)

    def layer_mask(self, layer: int, hidden: torch.Tensor, row: TokenRow) -> Any:
        """What a layer's kernel wants as mask for the tokens of a row, `hidden`."""
        places = self.places(layer, row) if self.beyond else None
        mask, blocks = self.mask(layer, row), self.blocks_of(row)
        return causal_mask(self.view, hidden, mask, self.past.cache, layer, blocks, places)

    def ready_masks(self, hidden: torch.Tensor) -> Any:
        """Masks for all layers and what is left, `hidden`, in the form in which base models hand them over."""
        return of_all_layers(self.view, lambda layer: self.layer_mask(layer, hidden, self.row))

    def after_cut(self, layer: int, past: str, dropped: list[bool]) -> None:
        """Note that layers from `layer` on see the new row; with `past="trim"`, cut the caches before it, too.

        Args:
            dropped: per row, whether any token has left; caches of other rows stay as they are.
        """
        self.seen[layer] = self.row
        self.check_padding(layer)
        cache = self.past.cache
        keys = cached_keys(cache, self.view.counting)
        filled = keys is not None  # layers that are recomputed in training cache nothing
        if cache is not None and filled and past == "trim" and layer > 0:
            cut: dict[int, tuple[torch.Tensor, TokenRow]] = {}
            for before in range(layer):
                held = self.at(self.held, before)
                if id(held) not in cut:
                    cut[id(held)] = held.trimmed_to(self.row, dropped, self.prompt.length + self.added)
                if self.view.attends(before):  # what has no keys cannot forget
                    trim(cache, before, self.past.columns[before], cut[id(held)][0])
            self.held = {first: cut[id(held)][1] for first, held in self.held.items() if first < layer}
        self.held[layer] = self.row

    def check_padding(self, layer: int) -> None:
        """Refuse padding that recurrent layers from `layer` on would carry into their state."""
        check_row(self.view, self.row, self.past.tokens, layer)

    @property
    def overrun(self) -> bool:
        """Whether recurrent layers have run over padding behind a row."""
        return runs_over_padding(self.view, self.prompt, self.seen)

    @staticmethod
    def at(rows: dict[int, TokenRow], layer: int) -> TokenRow:
        """The row in force at a layer."""
        return rows[max(first for first in rows if first <= layer)]

    def mask(self, layer: int, row: TokenRow) -> torch.Tensor | None:
        """2-D attention mask `[batch, past + slots]` over what a layer will have cached; None = all visible."""
        before, now = self.past.valid(layer), row.valid
        if before is None and now is None and not is_static(self.past.cache):
            return None  # a static cache's rest is to be hidden even so
        batch, device = len(row.lengths), row.column.device
        if before is None:
            before = torch.ones(batch, self.past.columns[layer], dtype=torch.bool, device=device)
        if now is None:
            now = torch.ones(batch, row.slots, dtype=torch.bool, device=device)
        return torch.cat([before.to(device), now], 1)

    def spans(self) -> list[Span]:
        """What the cache holds after this forward, layer range by layer range."""
        record = self.past.record
        firsts = {first for first in self.seen if first < self.view.depth}
        firsts |= {span.first for span in record.spans} if record is not None else set()
        spans: list[Span] = []
        last: TokenRow | None = None
        for first in sorted(firsts):
            held, seen = self.at(self.held, first), self.at(self.seen, first)
            moved = self.past.moved(first, seen.moved_after)
            if record is None and held is last and moved is spans[-1].moved:
                continue
            columns, places = self.past.columns[first] + held.slots, self.places(first, held)
            spans.append(Span(first, columns, self.mask(first, held), moved, places))
            last = held
        return spans

    def visual_columns(self, spans: list[Span]) -> VisualColumns:
        """Which of what the cache holds after this forward are visual tokens."""
        known = None if self.past.record is None else self.past.record.visual
        (now,) = upload([self.prompt.layout.visual.astype(int)], self.alive.device)
        found = {}
        for span in spans:
            held, past = self.at(self.held, span.first), self.past.columns[span.first]
            own = now.bool().gather(1, held.column)
            own = own if held.valid is None else own & held.valid
            if known is None:
                before = torch.zeros(len(own), past, dtype=torch.bool, device=own.device)
            else:
                assert self.past.record is not None
                before = known.at(self.past.record.span(span.first).first, past).to(own.device)
            found[span.first] = torch.cat([before, own], 1)
        return VisualColumns(found, {} if known is None else known.memory)

    def leave(self, cache: Cache, tokens: int, keeper: Keeper, visual: bool) -> None:
        """Install the record of what the cache holds after this forward, if it is less than the conversation.

        Args:
            tokens: of the conversation.
            visual: whether a strategy chooses among visual tokens at every step, which takes a record, too.
        """
        if self.past.record is None and len(self.seen) == 1 and self.row.whole and not visual:
            return
        spans, floor = self.spans(), tokens - self.prompt.closing_text()
        columns = self.visual_columns(spans) if visual else None
        real = self.past.real_with(self.valid, self.prompt.length)
        own = self.view.counting, spans, tokens, floor, keeper, self.overrun
        CacheRecord(cache, *own, visual=columns, real=real).install()

    # What the device found out.

    def verify(self) -> None:
        """Raise what is wrong with a decision: the one look at values that a prefill takes.

        Raises:
            StrategyError: something is.
        """
        if (numbers := self.findings.numbers()) is not None:
            self.findings.check(fetch({"numbers": numbers})["numbers"].tolist())

    def restore(self, output: Any) -> Any:
        """The decoder's output with hidden states back at full length; attention maps stay as the kernel made them."""

        def back(hidden: torch.Tensor, layer: int) -> torch.Tensor:
            row = self.at(self.seen, layer)
            return hidden if row.whole else row.restore(hidden, self.prompt.length)

        output.last_hidden_state = back(output.last_hidden_state, self.view.depth - 1)
        if output.get("hidden_states") is not None:
            states = output.hidden_states
            if self.entered:
                states = (torch.cat(self.entered, 1), *states[1:])
            restored = [back(x, max(0, i - 1)) for i, x in enumerate(states[:-1])]
            output.hidden_states = (*restored, output.last_hidden_state)
        return output
