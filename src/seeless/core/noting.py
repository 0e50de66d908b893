"""Runs of the vision tower, watched: what they give carries a note."""

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

from seeless.core.capture import Capture
from seeless.core.family import Kind, ModelView
from seeless.core.hooks import HookSet
from seeless.core.host import feature_layer_in
from seeless.core.leaving import Leaving, leaving_layers
from seeless.core.pictures import (
    NOTE,
    Note,
    Packing,
    Pictures,
    carriers,
    entering,
    geometry,
    given_grids,
    lengths,
    same_sized,
)
from seeless.core.stages import PlannedStage
from seeless.core.tail import skip_tail, without_tail
from seeless.core.tower import Merging, merging_layers
from seeless.core.tower_attention import AttentionTap
from seeless.core.tower_looks import FindLooks, Looks, check_unmerged, describe_tower
from seeless.core.transfer import fetch
from seeless.core.vision import VisionTap
from seeless.errors import InputError
from seeless.patches import PatchStrategy
from seeless.strategy import TowerStrategy
from seeless.tower import TowerSignal


class _Here(threading.local):
    """What a thread is doing."""

    busy = False


def acting_inside(view: ModelView, stages: Sequence[PlannedStage]) -> TowerStrategy | PatchStrategy | None:
    """The strategy that acts inside the tower, if one does.

    Raises:
        UnsupportedModel, BudgetError: it cannot, in this tower.
    """
    for stage in stages:
        strategy = stage.strategy
        if isinstance(strategy, TowerStrategy | PatchStrategy) and not strategy.keeps_all(0):
            for kind in view.kinds:
                if isinstance(strategy, TowerStrategy):
                    merging_layers(view, kind, strategy)
                else:
                    leaving_layers(view, kind, strategy)
            return strategy
    return None


class Noting:
    """Puts a note on everything the model's own `get_image_features` and `get_video_features` return.

    Args:
        tower: acts inside the tower; None = nobody does.
        reads: what strategies may ask of the tower; None = anything.
        looks: at what layers of a tower they look.
        self_check: whether attention that is read for the first time is compared with the model's own.
        on_note: called with the kind and the note of every run.
    """

    def __init__(
        self,
        view: ModelView,
        tower: TowerStrategy | PatchStrategy | None,
        reads: frozenset[TowerSignal] | None,
        looks: FindLooks,
        self_check: bool,
        on_note: Callable[[Kind, Note], None],
    ) -> None:
        self.view, self.tower, self.reads, self.on_note = view, tower, reads, on_note
        self.looks, self.self_check = looks, self_check
        self.here = _Here()

    def run(self, kind: Kind, encode: Callable, args: tuple, kwargs: dict, inside: bool) -> Any:
        """What `encode(*args, **kwargs)` gives, with a note on it.

        Args:
            inside: whether a forward of the model calls, or `generate` for one, which takes the features alone.
        """
        if self.here.busy:  # videos may be encoded by the images' method
            return encode(*args, **kwargs)
        self.here.busy = True
        try:
            return self._run(kind, encode, args, kwargs, inside)
        finally:
            self.here.busy = False

    def _run(self, kind: Kind, encode: Callable, args: tuple, kwargs: dict, inside: bool) -> Any:
        view, hooks = self.view, HookSet()
        bound = inspect.signature(encode).bind(*args, **kwargs)
        bound.apply_defaults()
        given = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        asked, packed = feature_layer_in(given), []  # type: ignore[var-annotated]
        tower = describe_tower(view, kind, asked)
        vision = VisionTap(view, Looks(tower, self.looks(tower)), self.reads)
        sizes = geometry(view, kind, given)
        if (places := given.get(view.family.places.get(kind, ""))) is not None:
            vision.seen, vision.room = (places >= 0).all(-1), places.shape[1]
        try:
            chosen = view.tapped_layers(kind, asked)
            capture, last = _tap_tower(view, kind, vision, hooks, chosen, self.self_check)
            if inside:
                vision.skipped = skip_tail(view, kind, last, given, hooks)
            if self.tower is not None:  # what is put on later acts first: the tap sees what merging leaves
                host = fetch(sizes)
                vision.patches, vision.grids = given_grids(view, kind, host), host.get(view.family.grids.get(kind, ""))
                acting = self._acting(kind, self.tower, asked, vision)
                check_unmerged(vision.looks, acting.layers)
                acting.attach(hooks)
            if view.family.packer is not None and kind == "image":
                _tap_packer(view, view.family.packer, packed.append, hooks)
            with capture:
                output = encode(*args, **kwargs)
            if vision.skipped:
                output = without_tail(output, vision.skipped)
        finally:
            hooks.over = True
            hooks.remove()
        if self.tower is not None:
            vision.taken = acting.shape
        features = entering(output)
        if not view.family.projected and vision.may_read("features"):
            vision.given = features
        if not sizes and not vision.patches:
            vision.patches = same_sized(view, vision, lengths(features))
        pixels = given["pixel_values" if view.videos_as_images else "pixel_values_videos"] if kind == "video" else ()
        videos = len(pixels)
        note = Note(kind, lengths(features), vision, sizes, packed[0] if packed else None, videos)
        if self.tower is not None:
            note.images(fetch(note.wanted()))
            vision.merged = acting.outcome()
        vars(output)[NOTE] = note
        for feature in carriers(features):  # accelerate rebuilds outputs around the same tensors
            setattr(feature, NOTE, note)
        self.on_note(kind, note)
        return output

    def _acting(
        self, kind: Kind, tower: TowerStrategy | PatchStrategy, asked: int | list[int] | None, vision: VisionTap
    ) -> Merging | Leaving:
        view = self.view
        if isinstance(tower, TowerStrategy):
            return Merging(view, kind, tower, merging_layers(view, kind, tower, asked), vision)
        layers, taken = leaving_layers(view, kind, tower, asked), view.tapped_layers(kind, asked)
        return Leaving(view, kind, tower, layers, vision, taken, self.self_check)


def _tap_tower(
    view: ModelView, kind: Kind, vision: VisionTap, hooks: HookSet, chosen: list[int], self_check: bool
) -> tuple[Capture, int]:
    """Watch one run of the tower; what comes back is to be entered while it lasts, and the last layer that is read."""
    layers, made, lead = view.tower_layers(kind), chosen[-1], view.has_class_token
    if made >= 0:
        attending = (index for index in range(made, -1, -1) if view.tower_attends(kind, index))
        vision.made = AttentionTap(next(attending, made), lead)
    if made + 1 < len(layers):
        vision.reader = AttentionTap(made + 1, lead)
    by_reader = vision.may_read("reader_attention", "reader_keys")
    read = {
        tap.layer: tap
        for tap, wanted in (
            (vision.made, vision.may_read("attention", "keys") or (by_reader and vision.reader is None)),
            (vision.reader, by_reader),
        )
        if tap is not None and wanted
    }

    hidden = {layer for what, layer in vision.looks.wanted if what == "hidden"}
    if vision.may_read("pooling") and made >= 0:
        hidden.add(made)
    for tap in vision.looks.open_taps([tap for tap in (vision.made, vision.reader) if tap is not None]):
        read[tap.layer] = tap

    def see_tower(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if (seen := kwargs.get("patch_attention_mask")) is not None:
            vision.seen = seen.flatten(1).bool()

    def see_layer(module: nn.Module, args: tuple, kwargs: dict) -> None:
        vision.taken = (args[0] if args else kwargs["hidden_states"]).shape

    def see_class_token(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if (states := getattr(output, "hidden_states", None)) is not None:
            vision.class_token = torch.cat([states[index + 1][:, 0] for index in chosen], -1)

    def see_features(module: nn.Module, args: tuple, kwargs: dict) -> None:
        projected = args[0] if args else next(iter(kwargs.values()))
        vision.width = projected.shape[-1]
        if vision.made is None:
            vision.taken = projected.shape
        if view.family.projected and vision.may_read("features"):
            vision.projected = projected

    def see_projected(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        vision.came_out += sum(tokens.shape[:-1].numel() for tokens in carriers(output))

    hooks.before(view.tower(kind), see_tower)
    if vision.made is not None:
        hooks.before(layers[made], see_layer)
    if view.has_class_token and vision.may_read("class_token"):
        hooks.after(view.tower(kind), see_class_token)
    for layer in hidden:
        hooks.after(layers[layer], partial(vision.looks.see, layer))
    hooks.before(view.projector, see_features)
    hooks.after(view.projector, see_projected)
    owners = {number: layers[number] for number in read}
    return Capture(owners, lambda number, call: read[number].see(call), self_check), max([*chosen, *read, *hidden])


def _tap_packer(view: ModelView, name: str, found: Callable[[Packing], None], hooks: HookSet) -> None:
    pack = getattr(view.base, name)
    signature = inspect.signature(pack)

    @wraps(pack)
    def packing(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = dict(bound.arguments)
        features = options.pop(next(iter(signature.parameters)))
        found(Packing(pack, [len(x) for x in features], features[0].shape[1], options, view.family.unresampled))
        return pack(*args, **kwargs)

    hooks.override(view.base, name, packing)


def check_merged(pictures: Pictures, tower: TowerStrategy | PatchStrategy | None) -> None:
    """Refuse features that were made under another strategy inside the tower than this handle's."""
    for tap in pictures.vision.taps:
        made = None if tap.merged is None else tap.merged.strategy
        if made != tower:
            raise InputError(
                f"these image features were made with {made or 'nothing'} inside the vision tower, but this handle "
                f"has {tower or 'nothing'} there; pass pixel_values, or call get_image_features again"
            )
