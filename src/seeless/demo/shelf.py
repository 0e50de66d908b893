"""The models that a page offers: a few, by the names it was started with, of which one is loaded at a time."""

from collections.abc import Sequence

from seeless.errors import InputError, brief
from seeless.eval.targets import target
from seeless.named.checkpoints import LoadedModel, load_config, load_embedded, load_model, resolve_name

MOST_MODELS = 16


class Shelf:
    """Models by name; the last one that was asked for stays loaded.

    Args:
        names: as `seeless.eval.targets.target` takes them: "tiny" and "reader" for the embedded models, short names,
            hub ids and folders.

    Raises:
        InvalidRequest, UnloadableModel: a name stands for no model.
        UnsupportedModel: a model cannot be reduced.
        InputError: there are more than 16.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(dict.fromkeys(names))
        if not 1 <= len(self.names) <= MOST_MODELS:
            raise InputError(f"a page offers 1 to {MOST_MODELS} models, not {len(self.names)}; name fewer")
        self._targets = {name: target(name) for name in self.names}
        for each in self._targets.values():
            load_config(resolve_name(each.pretrained))
        self._loaded: tuple[str, LoadedModel] | None = None

    def embedded(self, name: str) -> str | None:
        """The embedded model that a name stands for: they alone know the words of what is drawn; None for others."""
        return name if name in self._targets and self._targets[name].embedded else None

    def load(self, name: str) -> LoadedModel:
        """The model of that name; the one that was loaded before is let go.

        Raises:
            InputError: the page does not offer it.
            UnloadableModel: its weights or its processor cannot be loaded.
        """
        if name not in self._targets:
            raise InputError(f"this page offers no model {brief(name)}; it offers {', '.join(self.names)}")
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # before the next one comes: there may be room for one only
            found = self._targets[name]
            self._loaded = name, load_embedded(found.pretrained) if found.embedded else load_model(found.pretrained)
        return self._loaded[1]
