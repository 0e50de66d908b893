"""What a strategy answers: which visual tokens stay, and what the ones that stay become."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from seeless.errors import StrategyError

VALUES_AT_ONCE = 2**22  # summed up, of all tokens and channels


@dataclass(frozen=True, eq=False)
class Keep:
    """Keep some tokens and drop the others.

    Args:
        mask: `[units, visual]` bool, True = stays. Tokens keep their order.
        scores: `[units, visual]` or None; only reported.
        count: how many of each unit stay, where that is known without looking at the mask; None has the core look,
            which costs a GPU one wait for the host.
        named: `[units, visual + 1]` or None, how often `indices` was given each token, and last, places that are none.
    """

    mask: torch.Tensor
    scores: torch.Tensor | None = None
    count: int | None = None
    named: torch.Tensor | None = field(default=None, repr=False, kw_only=True)

    @classmethod
    def indices(cls, index: torch.Tensor, visual: int, scores: torch.Tensor | None = None) -> "Keep":
        """From `index` `[units, kept]` of the tokens that stay, in any order, out of `visual` tokens.

        Raises:
            StrategyError: `index` is no tensor of whole numbers with two axes.
        """
        if not isinstance(index, torch.Tensor) or index.dtype not in WHOLE or index.ndim != 2:
            raise StrategyError(
                f"Keep.indices got {described(index)}; give places as whole numbers [units, kept] "
                "(of one unit index[None]), or a bool mask to Keep itself"
            )
        place = torch.where((index >= 0) & (index < visual), index, visual).long()
        named = torch.zeros(len(index), visual + 1, dtype=torch.int32, device=index.device)
        named = named.scatter_add(1, place, torch.ones_like(place, dtype=torch.int32))
        return cls(named[:, :visual] > 0, scores, index.shape[1], named=named)


@dataclass(frozen=True, eq=False)
class Merge:
    """Keep some tokens and give them new values: weighted sums of old ones.

    The value of a kept token is `sum(weight * old[source])` over all entries whose `slot` is that token. A kept token
    without an entry keeps its value. It also keeps its position.

    Args:
        mask: `[units, visual]` bool, True = this token's place stays.
        source: `[units, entries]`, which token gives. With "vision" features the number of visual tokens, one past the
            last, is the class token of the unit's picture, where `Context.class_token` has one.
        slot: `[units, entries]`, which (kept) token receives.
        weight: `[units, entries]`.
        scores: `[units, visual]` or None; only reported.
        features: what is summed up: the "hidden" states at the stage, or, at the entry only, the "vision" features that
            the projector takes in (`Context.vision_features`); the sums then go through the model's own projector.
            Where the projector does not take one vector per token, both are the same.
        count: as for `Keep`.
    """

    mask: torch.Tensor
    source: torch.Tensor
    slot: torch.Tensor
    weight: torch.Tensor
    scores: torch.Tensor | None = None
    features: Literal["hidden", "vision"] = "hidden"
    count: int | None = None

    @property
    def receives(self) -> torch.Tensor:
        """`[units, visual]` bool, the tokens that get a new value."""
        return torch.zeros_like(self.mask).scatter(1, within(self.slot, self.mask.shape[1]), True)

    def values(self, visual: torch.Tensor) -> torch.Tensor:
        """New values `[units, visual, dim]` of all tokens (only those of kept places matter).

        Args:
            visual: `[units, visual, dim]` or, with the class token after them, `[units, visual + 1, dim]`.
        """
        (units, tokens), (given, dim) = self.mask.shape, visual.shape[1:]
        unit, flat = torch.arange(units, device=visual.device)[:, None], visual.flatten(0, 1)
        source, slot = within(self.source, given) + unit * given, within(self.slot, tokens) + unit * tokens
        weight, merged = self.weight.to(visual.dtype), torch.zeros_like(visual[:, :tokens]).flatten(0, 1)
        size = max(1, VALUES_AT_ONCE // (units * dim))
        for entries in zip(*(x.split(size, dim=1) for x in (source, slot, weight)), strict=True):
            some, receiving, by = (x.flatten() for x in entries)
            merged.index_add_(0, receiving, flat.index_select(0, some) * by[:, None])
        merged = merged.view(units, tokens, dim)
        return torch.where(self.receives[..., None], merged, visual[:, :tokens])


@dataclass(frozen=True, eq=False)
class Extend:
    """Keep some tokens, and put new ones right after the last visual token of the unit.

    The new tokens have the position of the last token that stays; earlier layers, whose caches must be trimmed, hold
    zero keys and values for them. There are at most as many as tokens that leave. Decoder stages only.

    Args:
        mask: `[units, visual]` bool, True = stays.
        new: `[units, added, dim]`, hidden states.
        scores: `[units, visual]` or None; only reported.
        count: as for `Keep`, of the tokens that stay.
    """

    mask: torch.Tensor
    new: torch.Tensor
    scores: torch.Tensor | None = None
    count: int | None = None


Decision = Keep | Merge | Extend
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def described(value: Any) -> str:
    """What was given in place of a tensor of the right kind, in words.

    >>> described(None), described(torch.zeros(2, 3)), described([1.0])
    ('None', 'a torch.float32 tensor [2, 3]', 'a list')
    """
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor {list(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def within(place: torch.Tensor, size: int) -> torch.Tensor:
    """Places that can be read: one out of range, which is reported as a fault, would end a GPU's work."""
    return place.long().clamp(0, size - 1)
