"""The part of a model's view that finds what is in its vision tower."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn

from seeless.core.host import FEATURE_LAYERS, feature_layer_in
from seeless.core.layer_kinds import RECURRENT
from seeless.errors import UnsupportedModel
from seeless.tower import UNREAD

if TYPE_CHECKING:
    from seeless.core.family import Family


def follow(module: nn.Module, path: str) -> Any:
    """The part of a module at a path of names; None if there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)  # type: ignore[assignment]
        if module is None:
            return None
    return module


class TowerParts:
    """What a model's vision tower is made of, by the names of its family."""

    family: "Family"
    config: Any
    base: Any
    projector: Any
    _towers: dict[str, Any]

    def _part(self, owner: nn.Module, path: str) -> Any:
        raise NotImplementedError

    def tower(self, kind: str) -> Any:
        """The tower of images or videos."""
        return self._towers[kind]

    def tower_layers(self, kind: str) -> Any:
        """Its layers."""
        tower = self._towers[kind]
        if not self.family.tower_layers:
            return ()
        for path in self.family.tower_layers:
            if (layers := follow(tower, path)) is not None:
                return layers
        raise UnsupportedModel(f"{type(tower).__name__} has none of {self.family.tower_layers}")

    def tower_attends(self, kind: str, index: int) -> bool:
        """Whether a tower layer has attention; else it convolves over the grid of patches."""
        kinds = getattr(self._towers[kind].config, "layer_types", None)
        return not kinds or kinds[index] not in RECURRENT

    def tapped_layers(self, kind: str, choice: int | list[int] | None = None) -> list[int]:
        """The tower layers whose output the projector takes; -1 is the embeddings.

        Args:
            choice: indices among the tower's hidden states, `vision_feature_layer`; None = the config's.
        """
        states = len(self.tower_layers(kind)) + 1
        if self.family.feeding is not None:
            choice = [layer for _, layer in sorted(self.feeding.items(), reverse=True)]  # what enters first comes last
        if choice is None:
            choice = feature_layer_in({name: getattr(self.config, name, None) for name in FEATURE_LAYERS})
        choice = -1 if choice is None else choice
        chosen = [choice] if isinstance(choice, int) else choice
        return [index % states - 1 for index in chosen]

    @cached_property
    def feeding(self) -> dict[int, int]:
        """By decoder layer before which something enters, the tower's hidden state that it is made of."""
        assert self.family.feeding is not None
        pairs, one, several = (getattr(self.config, name) for name in self.family.feeding)
        found = {after: layer for layer, after in [*pairs, *((one, after) for after in several)]}
        if min(found) > 0:
            raise UnsupportedModel(
                f"nothing of a picture enters this {self.family.title} model before decoder layer {min(found)} "
                f"({self.family.feeding[0]} of its config), so methods have nothing to choose by at the entry; "
                "what enters before layer 0 is read as a picture's features"
            )
        return found

    @property
    def projectors(self) -> list[nn.Module]:
        """All that take the tower's outputs to the decoder, save those that are `tower_readers`."""
        lists = [self._part(self.base, name) for name in self.family.projectors]
        return [part for one in lists for part in one] if lists else [self.projector]

    @property
    def tower_readers(self) -> list[nn.Module]:
        """Modules of the tower that take in what layers before the last give, for the decoder."""
        if self.family.tower_readers is None:
            return []
        return list(self._part(self._towers["image"], self.family.tower_readers))

    @property
    def has_class_token(self) -> bool:
        return self.config.vision_config.model_type in self.family.class_token_towers

    def refuse_unread(self) -> UnsupportedModel:
        """The error for a question to a tower whose layers the family does not name."""
        return UnsupportedModel(UNREAD)

    @property
    def tower_heads(self) -> int:
        config = self.config.vision_config
        return config.num_attention_heads if hasattr(config, "num_attention_heads") else config.num_heads

    @property
    def merge(self) -> int | None:
        """Patches per side that make one token, where the config says so."""
        return None if self.family.merge is None else self._number(self.family.merge)

    def _number(self, path: str) -> int:
        value = self.config
        for name in path.split("."):
            value = getattr(value, name)
        if isinstance(value, list | tuple):  # of height and width
            if len(set(value)) > 1:
                raise UnsupportedModel(
                    f"{path} of this {self.family.title} model is {list(value)}, but tokens are squares"
                )
            value = value[0]
        return round(1 / value) if value < 1 else int(value)

    def block(self, kind: str, patches: int) -> int:
        """Patches per side that make one token, of a picture of so many patches."""
        family = self.family
        if kind == "video" and family.video_merge is not None:
            return family.video_merge if isinstance(family.video_merge, int) else self._number(family.video_merge)
        if family.tokens is not None:
            return round((patches / getattr(self.config, family.tokens)) ** 0.5)
        return self.merge or 1

    @cached_property
    def merged_frames(self) -> int:
        """Frames of a video of which the model makes one."""
        number = self.family.merged_frames or 1
        return number if isinstance(number, int) else self._number(number)
