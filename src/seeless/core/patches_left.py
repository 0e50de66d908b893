"""What is left of the patches of one run of the vision tower."""

from dataclasses import dataclass

import torch

from seeless.core.checks import Findings
from seeless.patches import PatchStrategy


@dataclass(frozen=True)
class Left:
    """What is left of the patches of one run of the tower.

    Args:
        strategy: who decided.
        stays: `[tokens]` bool of all pictures, whether each one's patches are left.
        places: `[patches left]`, their numbers among those of all pictures, in the tower's order.
        sizes: how many are left of every picture.
        seen: per picture, the patches that each layer of the tower saw.
        findings: what is wrong with decisions.
    """

    strategy: PatchStrategy
    stays: torch.Tensor
    places: torch.Tensor
    sizes: list[int]
    seen: list[list[int]]
    findings: Findings

    def sizes_of(self, states: int, sizes: list[int], lead: int) -> list[int]:
        """How many patches of every picture there are among so many states of a layer.

        Args:
            sizes: before any had left.
            lead: class tokens of every picture.
        """
        return sizes if states == sum(sizes) + lead * len(sizes) else self.sizes

    def whole(self, states: torch.Tensor, sizes: list[int], lead: int) -> torch.Tensor:
        """States of a layer, `[class tokens and patches of all pictures, ...]`, as those of all patches, with 0 where
        patches had left. Arguments as for `sizes_of`."""
        own = self.sizes_of(len(states), sizes, lead)
        alone = torch.cat([part[lead:] for part in states.split([size + lead for size in own])])
        if own is sizes:
            return alone
        return alone.new_zeros(sum(sizes), *alone.shape[1:]).index_copy(0, self.places.to(alone.device), alone)
