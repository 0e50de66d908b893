"""What a conversation has cached before a forward."""

from dataclasses import dataclass, field

import torch
from transformers.cache_utils import Cache

from seeless.core.cache import CacheRecord, cached_length, held_columns
from seeless.core.shown import joined


@dataclass
class Past:
    """The cache a forward continues.

    Args:
        cache: None where there is none (yet).
        record: of a reduced cache.
        mask: `[batch, past]` bool of the input's 2-D attention mask, None = all ones; the record knows better, if any.
        tokens: cached so far, dropped ones included.
        depth: layers of the decoder.
        counting: the first of them with attention.

    Attributes:
        columns: per layer, what its cache has counted; a layer with a window may hold only the last of them.
    """

    cache: Cache | None
    record: CacheRecord | None
    mask: torch.Tensor | None
    tokens: int
    depth: int
    counting: int
    columns: list[int] = field(init=False)

    def __post_init__(self) -> None:
        if self.record is None:  # all layers hold the same
            self.columns = [cached_length(self.cache, self.counting)] * self.depth
        else:
            self.columns = [self.record.held(self.record.span(layer)) for layer in range(self.depth)]

    def made(self, cache: Cache | None) -> None:
        """The model may make its cache only after the entry; layers hand it over."""
        self.cache = cache if self.cache is None else self.cache

    def valid(self, layer: int) -> torch.Tensor | None:
        """Which of the tokens a layer has cached are real, `[batch, past]`; None = all."""
        past = self.columns[layer]
        if past == 0:
            return None
        return self.mask if self.record is None else self.record.span(layer).shown(past)

    def held(self, layer: int) -> int:
        """How many columns a layer's cache hands to its kernel ahead of new ones."""
        return held_columns(self.cache, layer, self.columns[layer])

    def places(self, layer: int, device: torch.device) -> torch.Tensor:
        """Where in the conversation the tokens stand that a layer has counted, `[batch or 1, past]`."""
        past = self.columns[layer]
        known = None if self.record is None else self.record.span(layer).placed(past, self.record.tokens)
        return torch.arange(past, device=device)[None] if known is None else known.to(device)

    def moved(self, layer: int, now: torch.Tensor | None) -> torch.Tensor | None:
        """What is added to positions at a layer: `now` here, and what earlier turns left; None = 0."""
        before = self.record.span(layer).moved if self.record is not None else None
        return now if before is None else before if now is None else now + before

    def real_with(self, now: torch.Tensor | None, length: int) -> torch.Tensor | None:
        """Which tokens of the conversation are no padding, `[batch, tokens + length]`; None = all.

        Args:
            now: `[batch, length]` bool, the same of this forward's; None = all.
        """
        before = self.mask if self.record is None else self.record.real
        if before is None and now is None:
            return None
        if now is None:
            assert before is not None
            now = torch.ones(len(before), length, dtype=torch.bool, device=before.device)
        return joined(before, self.tokens, now)
