"""What a strategy knows of a vision tower before it runs, and what it may say it will look at there."""

from dataclasses import dataclass
from typing import Literal

from seeless.errors import InputError, UnsupportedModel

TowerSignal = Literal[
    "attention", "keys", "features", "class_token", "reader_attention", "reader_keys", "layers", "pooling"
]
Asking = Literal["class", "all"]
Look = tuple[Literal["class", "all", "hidden"], int]

UNREAD = (
    "the vision tower of this model shows no attention that could be read; use a strategy that reads the features, the "
    "decoder or nothing"
)


@dataclass(frozen=True)
class Tower:
    """A vision tower, as far as its configuration tells.

    Args:
        layers: how many it has, numbered from 0; none where it is not read.
        made: the layer whose output the projector takes, the last one of several; -1 if it takes the embeddings.
        whole: layers whose attention lets every patch see its whole picture, ascending; others have windows, or
            convolve over the grid of patches.
        attending: layers with attention of either kind, ascending.
        class_token: whether the first token of every picture is a class token.
        first: the first layer that works on the patches which the layer `made` has; before it they are finer.
    """

    layers: int
    made: int
    whole: tuple[int, ...]
    attending: tuple[int, ...]
    class_token: bool
    first: int = 0

    @property
    def asking(self) -> Asking:
        """Whose rows rank patches: those of the "class" token, or of "all" patches where there is none."""
        return "class" if self.class_token else "all"

    def whole_from(self, layer: int) -> int:
        """The first layer from `layer` on that sees whole pictures, or else the last one before it.

        Raises:
            UnsupportedModel: the tower has none.
        """
        if not self.whole:
            raise UnsupportedModel(
                "no layer of this vision tower lets a patch see its whole picture, so its attention does not compare "
                "patches; use a strategy that reads no attention of the tower"
            )
        return next((own for own in self.whole if own >= layer), self.whole[-1])

    def check(self, look: Look) -> None:
        """Refuse what cannot be looked at.

        Raises:
            UnsupportedModel: there is no such row, or no attention up to that layer; patches are others there.
            InputError: there is no such layer.
        """
        what, layer = look
        if not 0 <= layer < self.layers:
            raise InputError(f"there is no tower layer {layer}; this tower has layers 0 to {self.layers - 1}")
        if layer < self.first:
            raise UnsupportedModel(
                f"tower layer {layer} works on finer patches than those the projector takes, of which this tower makes "
                f"one out of four before layer {self.first}; look at layers {self.first} to {self.layers - 1}"
            )
        if what == "class" and not self.class_token:
            raise UnsupportedModel("this vision tower has no class token; ask for the rows of 'all' patches")
        if what != "hidden" and self.attention_at(layer) < self.first:
            raise UnsupportedModel(f"no tower layer up to {layer} has attention that could be read")

    def attention_at(self, layer: int) -> int:
        """The layer whose attention stands for that of `layer`: itself, or the nearest before it with any; else -1."""
        return max((own for own in self.attending if own <= layer), default=-1)
