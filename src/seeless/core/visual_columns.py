"""Which columns of a reduced cache hold visual tokens, kept beside its record for strategies that choose among them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass(eq=False)
class VisualColumns:
    """Of a cache whose layers are in spans.

    Args:
        of_span: by the first layer of each span, `[batch, columns]` bool; columns behind these hold text.
        memory: tensors `[batch, ...]` of the strategy that chooses.
    """

    of_span: dict[int, torch.Tensor]
    memory: dict[str, torch.Tensor] = field(default_factory=dict)

    def at(self, first: int, count: int) -> torch.Tensor:
        """Of the span that begins with layer `first`, `[batch, count]`."""
        own = self.of_span[first]
        if (room := own.shape[1]) < count:
            own = self.of_span[first] = torch.nn.functional.pad(own, (0, 2 * count - room))
        return own[:, :count]

    def rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Follow a cache whose rows are reordered, repeated or selected."""
        self.of_span = {first: change(own) for first, own in self.of_span.items()}
        for name, own in self.memory.items():
            self.memory[name] = change(own)
