"""What a guest strategy may settle beside its scores, and what holds where it does not."""

from typing import Any

from seeless.strategy import Scope
from seeless.vtr.base import VTRStrategy
from seeless.vtr.config import VTRConfig

ON_THE_TOWER = "vispruner"  # PriorTR's framework tells by this name alone


class BuiltIn:
    """Ways of a strategy within the framework: where it cuts, what it needs, what it refuses."""

    scope: Scope = "row"
    before_decoder: bool = False

    def check(self, config: VTRConfig) -> None:
        """Raise if a configuration has no meaning for it."""

    def schedule(self, config: VTRConfig, depth: int) -> list[int]:
        """All K, in the order of the budgets."""
        return config.get_prune_layers()

    def references(self, config: VTRConfig) -> list[int]:
        """Layers whose incoming visual states it gets as `z_ref`."""
        return config.ref_layers or []


class OnTheTower(BuiltIn):
    """Ways of a strategy that cuts before the language model, image by image."""

    scope: Scope = "image"
    before_decoder = True


def ways_of(guest: Any, name: str) -> BuiltIn:
    """The ways of a guest that was registered under a name.

    A foreign one cuts before the language model if its attribute `before_decoder` says so or its name is "vispruner".
    """
    if isinstance(guest, BuiltIn):
        return guest
    return OnTheTower() if getattr(guest, "before_decoder", name == ON_THE_TOWER) else BuiltIn()


def merges(guest: Any) -> bool:
    """Whether a guest puts tokens back after a cut."""
    return getattr(type(guest), "post_prune", VTRStrategy.post_prune) is not VTRStrategy.post_prune
