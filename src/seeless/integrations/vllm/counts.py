"""How many tokens of a picture stay, from its layout alone: the prompt is laid out before anything is encoded."""

from dataclasses import dataclass

import numpy as np

from seeless.core.images import Image
from seeless.core.units import Layout, Placeholders, Unit
from seeless.integrations.vllm.errors import NotServed
from seeless.strategy import Strategy


@dataclass(frozen=True, eq=False)
class Plan:
    """What a strategy is to keep of one picture or video.

    Args:
        units: what is ranked together.
        counts: the budget of each unit, as `Context.n_keep`.
        promised: how many tokens of each unit really stay.
        others: `[tokens]`, places of tokens outside all units that stay.
    """

    units: list[Unit]
    counts: list[int]
    promised: list[int]
    others: np.ndarray

    @property
    def kept(self) -> int:
        """Tokens that stay."""
        return sum(self.promised) + len(self.others)


def layout_of(images: list[Image]) -> Layout:
    """Pictures, one to a row, as the core lays out visual tokens."""
    mask = np.zeros((len(images), max(map(len, images))), dtype=bool)
    for row, image in enumerate(images):
        mask[row, : len(image)] = True
    return Layout([Placeholders(mask, images)])


def ranks_patches(strategy: Strategy) -> bool:
    """Whether only tokens that show patches are ranked."""
    return strategy.patches_only or bool(strategy.tower)


def plan(strategy: Strategy, image: Image) -> Plan:
    """What stays of one picture or video.

    Raises:
        NotServed: only the picture's content tells how many.
    """
    layout = layout_of([image])
    if strategy.keeps_all(0):
        return Plan([], [], [], np.arange(len(image)))
    units = layout.units(strategy.scope, ranks_patches(strategy))
    frame, patch = layout.frame(0), layout.patch(0)
    counts, promised = [], []
    for unit in units:
        counts.append(min(strategy.kept_of(0, len(unit.tokens), 1), len(unit.tokens)))
        own = strategy.promised(counts[-1], frame[unit.tokens], patch[unit.tokens])
        if own is None:
            raise NotServed(f"how many tokens {strategy.name} keeps of a picture is not known before it is seen")
        promised.append(own)
    outside = np.ones(len(image), dtype=bool)
    for unit in units:
        outside[unit.tokens] = False
    others = np.flatnonzero(outside) if strategy.newlines else np.zeros(0, dtype=int)
    return Plan(units, counts, promised, others)
