"""Steps of decoding: what a strategy sees of one, and how it says which cached tokens deeper layers read."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, eq=False)
class Step:
    """One token that is decoded, in every row of a batch.

    Args:
        attention: `[rows, heads, columns]`, float32, of this token to everything that is cached and itself (the last
            column), in the layer before the ones that are to read a part. Padding has 0.
        visual: `[rows, columns]` bool, which columns are visual tokens.
        memory: tensors `[rows, ...]` that a strategy keeps from step to step; they live with the cache, and follow its
            rows where beams reorder them.
    """

    attention: torch.Tensor
    visual: torch.Tensor
    memory: dict[str, torch.Tensor] = field(repr=False)


class StepReader(ABC):
    """A strategy that also says, step by step of decoding, which cached visual tokens deeper layers read.

    To be inherited from beside `EntryStrategy` or another base. Nothing is dropped: the cache stays as it is, and what
    is not read at a step is hidden from it by a mask, in all layers from `reads_from` on. A forward of several tokens
    (a turn of text, drafts that are verified) reads everything, and so does one without a cache.

    Errors: `UnsupportedModel` for layers that have no attention (recurrent ones), where the layer whose attention is
    read looks back a window, for static, quantised and offloaded caches, and for attention kernels of which no form of
    mask is known; `BudgetError` for a layer outside the model, two such strategies, or a cut of another one at the
    layers that read a part.
    """

    @abstractmethod
    def reads_from(self, depth: int) -> int | None:
        """The first of the decoder's `depth` layers that read a part, 1 or more; None: all read everything."""

    @abstractmethod
    def read(self, step: Step) -> torch.Tensor:
        """Which visual tokens are read, `[rows, columns]` bool; columns of text are always read."""
