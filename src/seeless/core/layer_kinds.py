"""What kinds of layers a decoder has: with attention to everything, to a window of it, or with a state and none."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from seeless.errors import UnsupportedModel

if TYPE_CHECKING:
    from seeless.core.family import Family

RECURRENT = ("linear_attention", "conv")  # decoder layers, in transformers' words, that carry a state and cache no keys
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of decoder layers, as their config names them


class LayerKinds:
    """The part of a model's view that tells its decoder layers apart.

    Attributes:
        window: tokens that layers with sliding-window attention look back; None without such layers.
    """

    family: "Family"
    language_model: Any
    layers: Any
    window: int | None

    def _window(self) -> int | None:
        """Tokens that layers with sliding-window attention look back; None without such layers."""
        config = self.language_model.config
        kinds = getattr(config, "layer_types", None) or [SLIDING]
        known = (FULL, SLIDING, *RECURRENT)
        if unknown := sorted(set(kinds) - {*known}):
            raise UnsupportedModel(
                f"the decoder of this {self.family.title} model has layers of kind {', '.join(unknown)}, from which "
                f"seeless does not know how to drop tokens; supported are {', '.join(known)}"
            )
        if {*kinds} <= {*RECURRENT}:
            raise UnsupportedModel(
                f"no layer of this {self.family.title} model's decoder has attention, so nothing counts the tokens "
                "that its cache has seen; such models cannot be reduced"
            )
        return getattr(config, "sliding_window", None) if SLIDING in kinds else None

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return min(len(self.layers), self.language_model.config.num_hidden_layers)

    @cached_property
    def borrowing(self) -> int:
        """How many of the last decoder layers cache nothing, as they take keys and values of layers before them."""
        return getattr(self.language_model.config, "num_kv_shared_layers", 0) or 0

    @cached_property
    def last_cut(self) -> int:
        """The last decoder layer before which tokens can leave: from it on, layers lend keys and values to others."""
        if not self.borrowing:
            return self.depth
        own = [self.layer_kind(index) for index in range(self.depth - self.borrowing)]
        return min(max(i for i, kind in enumerate(own) if kind == each) for each in set(own))

    def layer_kind(self, index: int) -> str:
        """What sets a decoder layer's mask and rotary embedding apart from other layers'."""
        kinds = getattr(self.language_model.config, "layer_types", None)
        if kinds:
            return kinds[index]
        return FULL if self.window is None else SLIDING

    def attends(self, index: int) -> bool:
        """Whether a decoder layer has attention, and caches keys; else it is recurrent: it carries a state along."""
        return self.layer_kind(index) not in RECURRENT

    @cached_property
    def recurrent(self) -> list[int]:
        """The decoder layers without attention."""
        return [index for index in range(self.depth) if not self.attends(index)]

    @cached_property
    def counting(self) -> int:
        """The first decoder layer with attention: its cache says how many tokens there are."""
        return next(index for index in range(self.depth) if self.attends(index))

    def nearest_attention(self, index: int) -> int | None:
        """The decoder layer whose attention stands for that of `index`: itself, or the nearest before it that has any;
        None if there is none."""
        return next((layer for layer in range(index, -1, -1) if self.attends(layer)), None)

    def attention_layer(self, index: int) -> int:
        """The same.

        Raises:
            UnsupportedModel: there is none.
        """
        if (found := self.nearest_attention(index)) is None:
            first = self.counting
            raise UnsupportedModel(
                f"the first layer with attention of this {self.family.title} model's decoder is {first} (before it: "
                f"{self.layer_kind(index)}), so attention of layer {index} cannot be read; set layer={first + 1} or "
                "more, or use a method that reads no attention of the decoder"
            )
        return found

    def slides(self, index: int) -> bool:
        """Whether a decoder layer looks back a window only."""
        return self.window is not None and self.layer_kind(index) == SLIDING

    def reaches(self, tokens: int) -> bool:
        """Whether a conversation of so many tokens fills a window, from where on the model makes masks for it."""
        return self.window is not None and tokens >= self.window

    @cached_property
    def both_ways(self) -> tuple[str, ...]:
        """Kinds of decoder layers in which visual tokens see each other both ways."""
        condition = self.family.both_ways_if
        if condition is not None and getattr(self.language_model.config, condition[0], None) != condition[1]:
            return ()
        return self.family.both_ways

    def sees_both_ways(self, index: int) -> bool:
        """Whether visual tokens see each other both ways in a decoder layer."""
        return self.layer_kind(index) in self.both_ways
