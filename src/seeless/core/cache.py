"""What a reduced KV cache remembers about itself, kept on the cache object so that generations can interleave."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

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


@dataclass
class Span:
    """Consecutive layers, from `first` on, whose caches hold the same tokens.

    Args:
        first: the first of these layers.
        columns: tokens each of them held when the cache was last reduced.
        valid: `[batch, columns]` bool for the columns there were when the cache was last reduced; None = all valid.
        moved: `[batch, 1]`, what is added to the positions of all later tokens in these layers; None = 0.
    """

    first: int
    columns: int
    valid: torch.Tensor | None
    moved: torch.Tensor | None


@dataclass
class CacheRecord:
    """Installed on a reduced cache. `get_seq_length()` without a layer counts the dropped tokens too, so `generate` and
    the model go on slicing and numbering as if nothing had been dropped; with a layer it is that layer's own length."""

    cache: Cache
    spans: list[Span]
    removed: int
    is_active: Callable[[], bool] = field(repr=False)

    def install(self) -> None:
        for name in _METHODS:
            vars(self.cache)[name] = getattr(self, name)
        vars(self.cache)[_RECORD] = self

    def _stock(self, name: str) -> Any:
        return getattr(type(self.cache), name).__get__(self.cache)

    def span(self, layer: int) -> Span:
        return [span for span in self.spans if span.first <= layer][-1]

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        if layer_idx is None:
            return self._stock("get_seq_length")(0) + self.removed
        return self._stock("get_seq_length")(layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        if not self.is_active():
            raise InputError(
                "this cache was reduced under seeless.apply, whose handle has been removed; its positions mean nothing "
                "to the untouched model. Keep the handle while the conversation lasts, or start with a new cache"
            )
        return self._stock("get_mask_sizes")(query_length, layer_idx)

    def _rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for span in self.spans:
            span.valid = None if span.valid is None else change(span.valid)
            span.moved = None if span.moved is None else change(span.moved)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._stock("reorder_cache")(beam_idx)
        self._rows(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._stock("batch_repeat_interleave")(repeats)
        self._rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._stock("batch_select_indices")(indices)
        self._rows(lambda x: x[indices])

    def crop(self, tokens_to_remove: int) -> None:
        for span in self.spans:
            if self.get_seq_length(span.first) - abs(tokens_to_remove) < span.columns:
                raise InputError("a reduced cache cannot be cropped into the prompt it was reduced in; prefill anew")
        self._stock("crop")(tokens_to_remove)

    def reset(self) -> None:
        for name in (*_METHODS, _RECORD):
            vars(self.cache).pop(name, None)
        self._stock("reset")()


def record_of(cache: Cache | None) -> CacheRecord | None:
    """The record of a reduced cache; None for any other."""
    return None if cache is None else vars(cache).get(_RECORD)


def check_cache(cache: Cache | None) -> None:
    """Refuse, by name, caches whose layers cannot have lengths of their own."""
    if cache is None:
        return
    odd = {
        type(layer).__name__ for layer in cache.layers if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)
    }
    if type(cache) is not DynamicCache or odd or cache.offloading:
        kind = "an offloaded cache" if cache.offloading else f"{type(cache).__name__} ({', '.join(sorted(odd))})"
        raise UnsupportedModel(
            f"visual tokens cannot be dropped with {kind}; use the default DynamicCache "
            "(no cache_implementation in generate)"
        )


def cached_keys(cache: Cache | None, layer: int) -> torch.Tensor | None:
    """Keys a layer's cache holds, `[batch, kv_heads, columns, head_dim]`; None while it holds nothing."""
    own: Any = cache.layers[layer] if cache is not None and layer < len(cache.layers) else None
    return own.keys if own is not None and own.is_initialized else None


def cached_length(cache: Cache | None, layer: int) -> int:
    """Tokens a layer's cache holds."""
    keys = cached_keys(cache, layer)
    return 0 if keys is None else keys.shape[-2]


def trim(cache: Cache, layer: int, past: int, order: torch.Tensor) -> None:
    """Cut what this forward added to one layer's cache down to the kept tokens.

    Args:
        past: length of the layer's cache before this forward; that part stays.
        order: `[batch, slots]`, which of this forward's columns stay; -1 = none, a key and a value of zeros.
    """
    own: Any = cache.layers[layer]
    at = order.to(own.keys.device)[:, None, :, None]

    def kept(x: torch.Tensor) -> torch.Tensor:
        new = x[:, :, past:].gather(2, at.clamp(min=0).expand(-1, x.shape[1], -1, x.shape[-1]))
        new = new.masked_fill(at < 0, 0)
        return torch.cat([x[:, :, :past], new], 2) if past else new

    own.keys, own.values = kept(own.keys), kept(own.values)
    if isinstance(own, DynamicSlidingWindowLayer):  # still within its window: `Reducer` sees to that
        own.cumulative_length = own.keys.shape[-2]
