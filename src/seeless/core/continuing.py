"""A forward without new visual tokens on a reduced cache: masks and positions that fit what each layer holds."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from seeless.core.cache import CacheRecord, Span, is_static
from seeless.core.family import ModelView
from seeless.core.hooks import HookSet, hook_layers
from seeless.core.host import cache_in, mask_form
from seeless.core.masks import additive_mask, causal_mask
from seeless.core.recurrent import check_continued
from seeless.core.rotary import Rotary, chunks


class Continuing:
    """One such forward.

    Where nothing that is cached is padding, as the host knows, and all layers agree on positions, the model's own
    arguments serve for one more token, and nothing is done.

    Args:
        mask: 2-D, `[batch, conversation]`, dropped tokens included; None = all ones. Of one more token nobody asks
            whether it is padding, until several come at once.
    """

    def __init__(self, view: ModelView, record: CacheRecord, kwargs: dict, mask: torch.Tensor | None) -> None:
        ids = kwargs.get("input_ids")
        embeds = kwargs["inputs_embeds"] if ids is None else ids
        self.view, self.record, self.device = view, record, embeds.device
        self.batch, self.queries = embeds.shape[:2]
        padded = mask is not None and self.queries > 1 and record.look(mask)
        check_continued(view, record, padded)
        self.base = record.span(record.counting)  # whose mask and positions the model gives to all layers
        self.spans, self.kernel = record.spans, view.language_model.config._attn_implementation
        self.positions: torch.Tensor | None = kwargs.get("position_ids")
        self.one = self.queries == 1 and not is_static(record.cache)
        self.plain = self.one and self.kernel in ("sdpa", "eager")  # these take a mask of one query, made here
        self.flash = self.kernel.startswith("flash_attention")
        self.counts = mask_form(self.kernel) == "columns"
        self.padded = any(span.valid is not None for span in self.spans)
        self.start = record.length  # layers grow while they run
        self.beyond = view.reaches(self.start + self.queries)
        # Where all that a window reaches has its neighbours, the model's own masks, which count columns, serve.
        window = view.window
        self.gaps = window is not None and self.beyond and self.start + 1 - window < record.floor
        self.watch: AbstractContextManager = nullcontext()  # to be entered while the language model runs
        self.given: dict[tuple[int, str], dict] = {}  # what layers get in place of the model's, by span and kind
        self.rotary: dict[str, dict[int, Rotary]] = {}  # by kind and span

    def enter(self, kwargs: dict, hooks: HookSet) -> dict:
        """The language model's arguments; layers that need others get seams."""
        hook_layers(self.view.layers, self._needed(), self._before, hooks)
        base = self.base
        if self.plain:
            mask = self._of_one_query(base, self.view.language_model.dtype, self.device)
        else:
            mask = self._shown(base, self.device)
            mask = None if mask is None else mask.long()
        kwargs = {**kwargs, "attention_mask": mask}
        return kwargs if base.moved is None else {**kwargs, "position_ids": self._moved(base)}

    def _needed(self) -> list[int]:
        """Layers with attention whose mask or rotary embedding is not what the model gives to all, that is, to the
        first of them. What recurrent layers get is the same for all spans."""
        needed = {i for i in range(self.view.depth) if self._windowed(i)}
        if len(self.spans) == 1:
            return sorted(needed)
        alike = not self.padded and (self.plain or self.flash)
        ends = [*(span.first for span in self.spans[1:]), self.view.depth]
        for span, end in zip(self.spans, ends, strict=True):
            if span is not self.base and (not alike or span.moved is not self.base.moved):
                needed |= {*filter(self.view.attends, range(span.first, end))}
        return sorted(needed)

    def _windowed(self, index: int) -> bool:
        """Whether a layer looks back a window in which columns are not to be counted, or another mask was put."""
        if not self.beyond or not self.view.slides(index):
            return False
        return self.gaps or (not self.counts and (self.padded or len(self.spans) > 1))

    def _before(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        span = self.record.span(index)
        place = span.first, self.view.layer_kind(index)
        if place not in self.given:
            hidden = args[0] if args else kwargs["hidden_states"]
            self.given[place] = self._changes(index, span, hidden, kwargs)
        return args, {**kwargs, **self.given[place]}

    def _changes(self, index: int, span: Span, hidden: torch.Tensor, kwargs: dict) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if self._windowed(index):
            shown, places = self._shown(span, hidden.device), span.placed(self._counted(span), self.record.tokens)
            changes["attention_mask"] = causal_mask(self.view, hidden, shown, cache_in(kwargs), index, places=places)
        elif self.plain:
            changes["attention_mask"] = self._of_one_query(span, hidden.dtype, hidden.device)
        elif self.flash:
            shown, held = self._shown(span, hidden.device), self.record.get_mask_sizes(self.queries, index)[0]
            changes["attention_mask"] = None if shown is None else shown[:, -held:]
        else:
            shown = self._shown(span, hidden.device)
            changes["attention_mask"] = causal_mask(self.view, hidden, shown, cache_in(kwargs), index)
        if span.moved is not self.base.moved:
            changes["position_ids"] = self._moved(span)
            changes["position_embeddings"] = self._rotary(span, hidden, index)
        return changes

    def _rotary(self, span: Span, hidden: torch.Tensor, index: int) -> Rotary:
        """The rotary embedding in a span's layers of a kind; made for all spans at once."""
        kind = self.view.layer_kind(index)
        if kind not in self.rotary:
            own = [span for span in self.spans if span.moved is not self.base.moved]
            places = torch.cat([self._moved(span).expand(self.batch, -1) for span in own])
            parts = chunks(self.view.rotate(hidden, places, index), len(own))
            self.rotary[kind] = dict(zip([span.first for span in own], parts, strict=True))
        return self.rotary[kind][span.first]

    def _shown(self, span: Span, device: torch.device) -> torch.Tensor | None:
        """Which of the tokens a span's layers will hold are real, `[batch, held + queries]`; None = all."""
        shown = span.shown(self._counted(span))
        return None if shown is None else shown.to(device)

    def _counted(self, span: Span) -> int:
        """Tokens that a span's layers will have counted after this forward."""
        return span.columns + self.start - self.record.tokens + self.queries

    def _of_one_query(self, span: Span, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
        """The same for one query, as sdpa and eager attention take it, `[batch, 1, 1, held + 1]`."""
        shown = self._shown(span, device)
        if shown is None and self.kernel == "eager" and len(self.spans) > 1:
            return torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)  # fits keys of any number
        if shown is None:
            return None
        return shown[:, None, None] if self.kernel == "sdpa" else additive_mask(shown[:, None, None], dtype)

    def _moved(self, span: Span) -> torch.Tensor:
        """Positions `[batch or 1, queries]` in a span's layers."""
        if self.positions is None:
            self.positions = torch.arange(self.start, self.start + self.queries, device=self.device)[None]
        if span.moved is None:
            return self.positions
        return self.positions + span.moved.to(self.positions.device)
