"""What a built-in guest strategy may settle beside its scores; foreign ones have these defaults."""

from seeless.strategy import Scope
from seeless.vtr.config import VTRConfig


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
