"""What a reduced KV cache remembers about itself, kept on the cache object so that generations can interleave."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
    QuantizedCache,
    StaticCache,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from seeless.core.host import EMPTY_LAYERS
from seeless.core.shown import check_shown, count_hidden, joined
from seeless.core.transfer import fetch
from seeless.core.visual_columns import VisualColumns
from seeless.errors import InputError, UnsupportedModel

_RECORD = "_seeless_record"
_METHODS = (
    "get_seq_length",
    "get_mask_sizes",
    "reorder_cache",
    "batch_repeat_interleave",
    "batch_select_indices",
    "crop",
    "reset",
)
_GROWING = DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer
_STATIC = StaticLayer, StaticSlidingWindowLayer, LinearAttentionLayer


class Keeper:
    """The handle under which a cache was reduced, weakly held. A pickled one has none, until a handle adopts it."""

    def __init__(self, handle: Any = None) -> None:
        self._handle = None if handle is None else weakref.ref(handle)

    @property
    def active(self) -> bool:
        """Whether the handle is still on its model."""
        handle = None if self._handle is None else self._handle()
        return handle is not None and handle.active

    def __reduce__(self) -> tuple:
        return Keeper, ()

    def __deepcopy__(self, memo: dict) -> "Keeper":
        return self


@dataclass(eq=False)
class Span:
    """Consecutive layers, from `first` on, whose caches hold the same tokens.

    Args:
        first: the first of these layers.
        columns: tokens each of them held when the conversation had `CacheRecord.tokens`.
        valid: `[batch, columns or more]` bool, False on padding, True behind `columns`; None = all valid, as the host
            knows.
        moved: `[batch, 1]`, what is added to the positions of all later tokens in these layers; None = 0.
        places: `[batch, columns or more]`, where in the conversation, dropped tokens counted, the token of each column
            stands; those behind `columns` follow one another. None where no layer has a window.
    """

    first: int
    columns: int
    valid: torch.Tensor | None
    moved: torch.Tensor | None
    places: torch.Tensor | None = None

    def shown(self, count: int) -> torch.Tensor | None:
        """`valid` of the first `count` columns, `[batch, count]`; None = all."""
        if self.valid is None:
            return None
        if (room := self.valid.shape[1]) < count:
            self.valid = torch.nn.functional.pad(self.valid, (0, 2 * count - room), value=True)
        return self.valid[:, :count]

    def placed(self, count: int, tokens: int) -> torch.Tensor | None:
        """`places` of the first `count` columns, `[batch, count]`; None where no layer has a window.

        Args:
            tokens: of the conversation, when these layers held `columns`.
        """
        if self.places is None:
            return None
        if (room := self.places.shape[1]) < count:
            later = torch.arange(room, 2 * count, device=self.places.device) + tokens - self.columns
            self.places = torch.cat([self.places, later.expand(len(self.places), -1)], 1)
        return self.places[:, :count]


@dataclass(eq=False)
class CacheRecord:
    """Installed on a reduced cache. `get_seq_length()` without a layer counts the dropped tokens too, so `generate` and
    the model go on slicing and numbering as if nothing had been dropped; with a layer it is that layer's own length.

    Args:
        counting: the first layer with attention, whose cache says how many tokens it holds.
        tokens: of the conversation, dropped ones included, up to which `spans` say what is cached.
        floor: of the conversation, behind which every layer holds the same tokens, so that it can be cropped to there.
        keeper: the handle.
        overrun: whether recurrent layers have run over padding behind the tokens of some row.
        since: tokens cached after `tokens`; a static cache keeps its own count on the device.
        visual: which columns are visual tokens; None unless a strategy chooses among them at every step.
        real: `[batch, tokens]` bool, dropped ones included, False on padding, as masks have said; None = all real.
    """

    cache: Cache
    counting: int
    spans: list[Span]
    tokens: int
    floor: int
    keeper: Keeper
    overrun: bool = field(default=False)
    since: int = field(default=0)
    visual: VisualColumns | None = field(default=None)
    real: torch.Tensor | None = field(default=None)

    def install(self) -> None:
        for name in _METHODS:
            vars(self.cache)[name] = getattr(self, name)
        vars(self.cache)[_RECORD] = self

    def span(self, layer: int) -> Span:
        found = self.spans[0]
        for span in self.spans:
            found = span if span.first <= layer else found
        return found

    @property
    def length(self) -> int:
        """Tokens of the conversation, dropped ones included; the host knows."""
        return self.tokens + self.since if is_static(self.cache) else self._counted

    @property
    def _counted(self) -> int:
        """The same as the cache counts it."""
        own = self.span(self.counting)
        return type(self.cache).get_seq_length(self.cache, self.counting) + self.tokens - own.columns

    @property
    def even(self) -> bool:
        """Whether all layers hold and read the same tokens, none of them padding."""
        one = len(self.spans) == 1 and self.visual is None
        return one and self.spans[0].valid is None and not self.overrun

    def held(self, span: Span) -> int:
        """Tokens in the cache of a span's layers."""
        return span.columns + self.length - self.tokens

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        if layer_idx is None:
            return self._counted
        return type(self.cache).get_seq_length(self.cache, layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        if not self.keeper.active:
            raise InputError(
                "this cache was reduced under seeless.apply, whose handle has been removed; its positions mean nothing "
                "to the untouched model. Keep the handle while the conversation lasts, or start with a new cache"
            )
        return type(self.cache).get_mask_sizes(self.cache, query_length, layer_idx)

    def look(self, mask: torch.Tensor) -> bool:
        """Learn from a 2-D mask `[batch, conversation]` which tokens behind `tokens` are padding; whether any are.
        Waits for it once.

        Raises:
            InputError: see `check_shown`.
        """
        later, hidden = mask[:, self.tokens :], count_hidden(mask[:, : self.tokens], self.real)
        found = fetch({"later": later, "hidden": hidden})
        check_shown(found["hidden"])
        if found["later"].all():
            return False
        self.learn(later)
        return True

    def learn(self, later: torch.Tensor) -> None:
        """Remember a mask `[batch, n]` of the `n` tokens behind `tokens`."""
        n = later.shape[1]
        for span in self.spans:
            known = span.shown(span.columns)
            if known is None:
                known = torch.ones(len(later), span.columns, dtype=torch.bool, device=later.device)
            span.valid = torch.cat([known, later.to(known.device, torch.bool)], 1)
            span.columns += n
        self.real = joined(self.real, self.tokens, later.bool())
        self.tokens, self.since = self.tokens + n, self.since - n

    def _rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        moved = {id(span.moved): change(span.moved) for span in self.spans if span.moved is not None}
        for span in self.spans:  # what was one tensor stays one: by that, layers of equal positions are known
            span.valid = None if span.valid is None else change(span.valid)
            span.moved = moved.get(id(span.moved))
            span.places = None if span.places is None else change(span.places)
        self.real = None if self.real is None else change(self.real)
        if self.visual is not None:
            self.visual.rows(change)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        type(self.cache).reorder_cache(self.cache, beam_idx)  # type: ignore[arg-type]
        self._rows(lambda x: x.index_select(0, beam_idx.to(x.device)))

    @property
    def _recurrent(self) -> list[LinearAttentionLayer]:
        return [layer for layer in self.cache.layers if isinstance(layer, LinearAttentionLayer)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self._recurrent:  # they can be reordered only
            rows = cached_keys(self.cache, self.counting)
            assert rows is not None
            return self.reorder_cache(torch.arange(len(rows), device=rows.device).repeat_interleave(repeats))
        type(self.cache).batch_repeat_interleave(self.cache, repeats)
        self._rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self._recurrent:
            return self.reorder_cache(indices)
        type(self.cache).batch_select_indices(self.cache, indices)
        self._rows(lambda x: x[indices])

    def crop(self, tokens_to_remove: int) -> None:
        length = self.length
        if tokens_to_remove > 0:
            DynamicLayer().crop(tokens_to_remove)  # releases that take no length to crop to refuse here
            tokens_to_remove = min(0, tokens_to_remove - length)
        left = length + tokens_to_remove
        if left < self.floor:
            raise InputError(
                f"a reduced cache cannot be cropped to {left} tokens, into the images it was reduced in: layers hold "
                f"different tokens before token {self.floor} of the conversation; crop to {self.floor} or more, or "
                "prefill anew"
            )
        if any(not (layer.is_croppable and layer.record_past) for layer in self._recurrent):
            raise InputError(
                "this cache cannot be cropped: the state of linear-attention layers cannot forget tokens, and that of "
                "convolutions only after cache.activate_past_recording() before the prefill; copy the cache before "
                "(copy.deepcopy), or prefill anew"
            )
        type(self.cache).crop(self.cache, tokens_to_remove)
        gone, self.since = self.tokens - left, self.since + tokens_to_remove
        if gone > 0:
            for span in self.spans:
                span.columns -= gone
                span.valid = None if span.valid is None else span.valid[:, : span.columns]
            self.real = None if self.real is None else self.real[:, :left]
            self.tokens, self.since = left, self.since + gone

    def reset(self) -> None:
        for name in (*_METHODS, _RECORD):
            vars(self.cache).pop(name, None)
        type(self.cache).reset(self.cache)


def record_of(cache: Cache | None) -> CacheRecord | None:
    """The record of a reduced cache; None for any other."""
    return None if cache is None else vars(cache).get(_RECORD)


def is_static(cache: Cache | None) -> bool:
    """Whether the layers of a cache have room for a fixed number of tokens, and may hold fewer."""
    return type(cache) is StaticCache


def check_cache(cache: Cache | None, between_layers: bool) -> None:
    """Refuse caches that cannot hold what is left of the tokens.

    Args:
        between_layers: whether tokens leave between layers, so that these hold different tokens and are read.

    Raises:
        UnsupportedModel: names the cache, and what is possible.
    """
    if cache is None:
        return
    kinds = {type(layer) for layer in getattr(cache, "layers", [])} - EMPTY_LAYERS
    known = (type(cache) is DynamicCache and kinds <= {*_GROWING}) or (is_static(cache) and kinds <= {*_STATIC})
    if known and not cache.offloading:
        return
    at_entry = known or type(cache) is QuantizedCache
    if at_entry and not between_layers:
        return
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    kind = "an offloaded cache" if cache.offloading else f"{type(cache).__name__} ({names})"
    raise UnsupportedModel(
        f"visual tokens cannot be dropped {'between layers ' if at_entry else ''}with {kind}; use the default "
        "DynamicCache (no cache_implementation in generate) or a StaticCache"
        + (", or a method that acts at the entry or in the tower" if at_entry else "")
    )


def cached_states(cache: Cache | None, layer: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Keys and values a layer's cache has, `[batch, kv_heads, columns or room, dim]`; None while it holds nothing."""
    own: Any = cache.layers[layer] if cache is not None and layer < len(cache.layers) else None
    return (own.keys, own.values) if own is not None and own.is_initialized else (None, None)


def cached_keys(cache: Cache | None, layer: int) -> torch.Tensor | None:
    """The keys of these."""
    return cached_states(cache, layer)[0]


def cached_length(cache: Cache | None, layer: int) -> int:
    """Tokens a layer's cache holds."""
    own: Any = cache.layers[layer] if cache is not None and layer < len(cache.layers) else None
    if own is None or not own.is_initialized:
        return 0
    record = record_of(cache)
    return record.held(record.span(layer)) if record is not None and is_static(cache) else int(own.get_seq_length())


def cache_room(cache: Cache | None, layer: int) -> int | None:
    """How many columns a layer's cache holds, at most; None if it forgets nothing."""
    own: Any = cache.layers[layer] if cache is not None and layer < len(cache.layers) else None
    return own.sliding_window - 1 if isinstance(own, DynamicSlidingWindowLayer) else None


def held_columns(cache: Cache | None, layer: int, counted: int) -> int:
    """How many of the columns a layer's cache has counted it hands to the kernel ahead of new ones: the last, where it
    forgets what its window leaves behind."""
    own: Any = cache.layers[layer] if cache is not None and layer < len(cache.layers) else None
    window = _window(own)
    return counted if window is None or counted < window else window - 1


def held_keys(own: Any, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of the columns that one layer's cache hands to the kernel ahead of new ones.

    Args:
        count: how many these are, `held_columns`.
    """
    full = (window := _window(own)) is not None and own.get_seq_length() >= window
    first = own.keys.shape[-2] - count if full else 0
    return own.keys[:, :, first : first + count], own.values[:, :, first : first + count]


def _window(own: Any) -> int | None:
    """Columns behind which one layer's cache forgets; None if it forgets nothing."""
    if isinstance(own, StaticSlidingWindowLayer):
        return own.max_cache_len
    return own.sliding_window if isinstance(own, DynamicSlidingWindowLayer) else None


def trim(cache: Cache, layer: int, past: int, order: torch.Tensor) -> None:
    """Cut what this forward added to one layer's cache down to the kept tokens.

    A layer with a window may have forgotten some of what is to stay. Zeros then stand in its place, and no token to
    come sees them: what was forgotten lies a window back in the conversation.

    Args:
        past: columns the layer's cache had counted before this forward; they stay.
        order: `[batch, slots]`, which of this forward's columns stay; -1 = none, a key and a value of zeros.
    """
    own: Any = cache.layers[layer]
    order = order.to(own.keys.device)
    static, sliding = isinstance(own, StaticLayer), _window(own) is not None
    count, forgotten, out = past + order.shape[1], 0, 0
    if sliding:
        room = own.max_cache_len if static else own.sliding_window - 1
        forgotten = max(0, own.get_seq_length() - (room if static else own.keys.shape[-2]))
        out = min(forgotten, past) if not static and own.record_past else max(0, count - room)
    before = torch.arange(past, device=order.device).expand(len(order), -1)
    source = torch.cat([before, torch.where(order < 0, -1, order + past)], 1)[:, out:] - forgotten
    absent, at = (source < 0)[:, None, :, None], source.clamp(min=0)

    def kept(x: torch.Tensor) -> torch.Tensor:
        batch, heads, columns, dim = x.shape
        first = torch.arange(batch * heads, device=x.device).view(batch, heads, 1) * columns
        new = x.reshape(-1, dim).index_select(0, (at[:, None] + first).flatten())
        return new.view(batch, heads, -1, dim).masked_fill_(absent, 0)

    if static:
        for x in (own.keys, own.values):
            x[:, :, : count - out] = kept(x)
        own.cumulative_length.fill_(count)
        if sliding:
            own.cumulative_length_int = count
        return
    own.keys, own.values = kept(own.keys), kept(own.values)
    if sliding:
        own.cumulative_length = count
