"""What a strategy answers: which visual tokens stay, and what the ones that stay become."""

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True, eq=False)
class Keep:
    """Keep some tokens and drop the others.

    Args:
        mask: `[units, visual]` bool, True = stays. Tokens keep their order.
        scores: `[units, visual]` or None; only reported.
        count: how many of each unit stay, where that is known without looking at the mask; None has the core look,
            which costs a GPU one wait for the host.
    """

    mask: torch.Tensor
    scores: torch.Tensor | None = None
    count: int | None = None

    @classmethod
    def indices(cls, index: torch.Tensor, visual: int, scores: torch.Tensor | None = None) -> "Keep":
        """From `index` `[units, kept]` of the tokens that stay, each once, in any order, out of `visual` tokens."""
        mask = torch.zeros(len(index), visual, dtype=torch.bool, device=index.device)
        return cls(mask.scatter(1, index, True), scores, index.shape[1])


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
        return torch.zeros_like(self.mask).scatter(1, self.slot, True)

    def values(self, visual: torch.Tensor) -> torch.Tensor:
        """New values `[units, visual, dim]` of all tokens (only those of kept places matter).

        Args:
            visual: `[units, visual, dim]` or, with the class token after them, `[units, visual + 1, dim]`.
        """
        tokens, dim = self.mask.shape[1], visual.shape[-1]
        given = visual.gather(1, self.source[..., None].expand(-1, -1, dim)) * self.weight[..., None].to(visual.dtype)
        slot = self.slot[..., None].expand(-1, -1, dim)
        merged = torch.zeros_like(visual[:, :tokens]).scatter_add(1, slot, given)
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
