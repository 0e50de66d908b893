"""More of the vision tower than the layers around its features: what strategies say they look at, and no more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from seeless.core.family import ModelView
from seeless.core.tower_attention import AttentionTap
from seeless.errors import UnsupportedModel
from seeless.tower import Asking, Look, Tower

FindLooks = Callable[[Tower], frozenset[Look]]


def describe_tower(view: ModelView, kind: str, choice: int | list[int] | None = None) -> Tower:
    """What strategies are told of the tower of images or videos; of no layers where it is not read.

    Args:
        choice: `vision_feature_layer` of a run; None = the config's.
    """
    layers = len(view.tower_layers(kind))
    if not layers:
        return Tower(0, -1, (), (), view.has_class_token)
    config: Any = view.config.vision_config
    attending = tuple(index for index in range(layers) if view.tower_attends(kind, index))
    whole = tuple(sorted(config.fullatt_block_indexes)) if view.family.windows else attending
    merging = view.family.merging_layer
    first = 0 if merging is None else getattr(config, merging) + 1
    return Tower(layers, view.tapped_layers(kind, choice)[-1], whole, attending, view.has_class_token, first)


def check_unmerged(looks: "Looks", merging: range) -> None:
    """Refuse to look at layers that see merged tokens, or not all that will leave gone.

    Raises:
        UnsupportedModel: some look does.
    """
    for what, layer in sorted(looks.wanted):
        if (layer if what == "hidden" else looks.tower.attention_at(layer)) in merging:
            raise UnsupportedModel(
                f"tower layer {layer} sees tokens that become fewer there, so nothing is known of every patch; look at "
                f"layers before {merging.start} or from {merging.stop} on, or leave out what acts inside the tower"
            )


@dataclass
class Looks:
    """What one run of the tower shows of layers that strategies look at.

    Args:
        tower: which tower it is.
        wanted: what is looked at.
        taps: attention, by the layer that is read.
        states: what layers gave, call by call, `[..., patches, width]`.
    """

    tower: Tower
    wanted: frozenset[Look]
    taps: dict[int, AttentionTap] = field(default_factory=dict, repr=False)
    states: dict[int, list[torch.Tensor]] = field(default_factory=dict, repr=False)

    def open_taps(self, known: Sequence[AttentionTap]) -> list[AttentionTap]:
        """One for every layer whose attention is looked at; `known` ones of these layers are used."""
        by_layer = {tap.layer: tap for tap in known}
        for what, layer in self.wanted:
            if what == "hidden":
                continue
            number = self.tower.attention_at(layer)
            tap = by_layer.setdefault(number, AttentionTap(number, self.tower.class_token))
            tap.whole |= what == "all"
            self.taps[number] = tap
        return list(self.taps.values())

    def tap(self, layer: int, queries: Asking) -> AttentionTap | None:
        """The attention that stands for that of `layer`; None if nobody said it would be looked at."""
        return self.taps.get(self.tower.attention_at(layer)) if (queries, layer) in self.wanted else None

    def see(self, layer: int, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        """Note what a layer gives."""
        states = output[0] if isinstance(output, tuple) else output
        self.states.setdefault(layer, []).append(states.detach())

    def release(self) -> None:
        """Give up everything."""
        self.states.clear()
        for tap in self.taps.values():
            tap.calls = []
