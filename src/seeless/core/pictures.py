"""Which tokens are visual, and what the vision tower said about them: a note on every output of the tower.

`generate` may run the tower long before the forward that uses its features, and may repeat them for beams. So the
notes live on the outputs of `get_image_features` and `get_video_features` themselves.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal

import torch
from torch import nn
from transformers.vision_utils import get_vision_window_index

from seeless.context import TowerSignal
from seeless.core.capture import Capture
from seeless.core.family import ModelView
from seeless.core.hooks import HookSet
from seeless.core.tower import Merging, merging_layers
from seeless.core.tower_attention import AttentionTap
from seeless.core.units import NO_PATCH, Image, Layout, Placeholders, packed_images
from seeless.core.vision import Side, Vision, VisionTap, token_side
from seeless.errors import InputError
from seeless.strategy import TowerStrategy

_NOTE = "_seeless_note"
Kind = Literal["image", "video"]
PIXELS: dict[Kind, tuple[str, ...]] = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
}


@dataclass(frozen=True)
class Note:
    """What is known about the outcome of one run of the tower.

    Args:
        images: images or videos, in order.
        features: how many feature tensors the model made of them (rows of its `pooler_output`).
    """

    images: list[Image]
    features: int
    vision: VisionTap


@dataclass
class Pictures:
    """The visual tokens of one forward.

    Args:
        masks: per kind, `[batch, seq]` bool, True on its placeholders.
        notes: per kind, the note and how often the features of every row are repeated, once the tower ran.
    """

    masks: dict[Kind, torch.Tensor]
    notes: dict[Kind, tuple[Note, int]] = field(default_factory=dict)

    @property
    def visual(self) -> torch.Tensor:
        return torch.stack(list(self.masks.values())).any(0)

    def layout(self, valid: torch.Tensor | None, runs: bool) -> Layout:
        """Where they are; `valid` `[batch, seq]` bool is False on padding."""
        kinds, base = [], 0
        for kind, mask in self.masks.items():
            note, repeats = self.notes[kind]
            mask = mask if valid is None else mask & valid
            images = [image.to(mask.device) for image in _repeated(note.images, mask, repeats)]
            kinds.append(Placeholders(mask, images, base, runs and kind == "image"))
            base += note.vision.count
        return Layout(kinds)

    @property
    def vision(self) -> Vision:
        return Vision([self.notes[kind][0].vision for kind in self.masks])


def _repeated(images: list[Image], mask: torch.Tensor, repeats: int) -> list[Image]:
    """The images as the rows of `mask` show them, every row of the original batch `repeats` times in succession."""
    if repeats == 1:
        return images
    result, pending = [], list(images)
    for count in mask[::repeats].sum(1).tolist():
        own: list[Image] = []
        while count > 0 and pending:
            own.append(pending.pop(0))
            count -= len(own[-1].patch)
        result += own * repeats
    return result


def find_pictures(view: ModelView, given: dict) -> Pictures | None:
    """The visual tokens of a forward of the base model called with `given`; None if it gets no pictures."""
    ready = given.get("mm_encoder_outputs") or {}
    pictures = Pictures({})
    for kind in PIXELS:
        if ready.get(kind) is not None:
            pictures.masks[kind] = placeholder_mask(view, given, kind)
            pictures.notes[kind] = read_note(ready[kind])
        elif any(given.get(name) is not None for name in PIXELS[kind]):
            pictures.masks[kind] = placeholder_mask(view, given, kind)
    return pictures if pictures.masks else None


def read_note(output: Any) -> tuple[Note, int]:
    """The note on ready-made features, and how often they are repeated.

    Raises:
        InputError: they were made without `apply`, or cut up since.
    """
    note, count = getattr(output, _NOTE, None), len(output.pooler_output)
    carried = {id(found): found for f in _carriers(output.pooler_output) if (found := getattr(f, _NOTE, None))}
    if len(carried) > 1:
        raise InputError("the images of one forward come from several runs of the tower; encode them together")
    if note is None and carried:
        note = next(iter(carried.values()))
    if note is None or count % note.features:
        raise InputError(
            "these image features were made without this handle, or were cut up (prefill_chunk_size); "
            "pass pixel_values, or call get_image_features while the handle is active"
        )
    return note, count // note.features


def _carriers(features: Any) -> list[torch.Tensor]:
    return [features] if isinstance(features, torch.Tensor) else list(features)


def placeholder_mask(view: ModelView, given: dict, kind: Kind) -> torch.Tensor:
    """`[batch, seq]` bool, True on placeholders, from ids or, without them, from embeddings."""
    token = view.placeholder(kind)
    if (ids := given.get("input_ids")) is not None:
        return ids == token
    embeds = given["inputs_embeds"]
    table = view.base.get_input_embeddings()
    return (embeds == table(torch.tensor(token, device=embeds.device)).to(embeds.dtype)).all(-1)


class Noting:
    """Puts a note on everything the model's own `get_image_features` and `get_video_features` return.

    Args:
        tower: merges tokens inside the tower; None = nobody does.
        reads: what strategies may ask of the tower; None = anything.
        self_check: whether attention that is read for the first time is compared with the model's own.
        on_note: called with the kind and the note of every run.
    """

    def __init__(
        self,
        view: ModelView,
        tower: TowerStrategy | None,
        reads: frozenset[TowerSignal] | None,
        self_check: bool,
        on_note: Callable[[Kind, Note], None],
    ) -> None:
        self.view, self.tower, self.reads, self.on_note = view, tower, reads, on_note
        self.self_check = self_check
        self.busy = False

    def wrap(self, kind: Kind, encode: Callable) -> Callable:
        @wraps(encode)
        def get_features(*args: Any, **kwargs: Any) -> Any:
            if self.busy:  # videos may be encoded by the images' method
                return encode(*args, **kwargs)
            self.busy = True
            try:
                return self._run(kind, encode, args, kwargs)
            finally:
                self.busy = False

        return get_features

    def _run(self, kind: Kind, encode: Callable, args: tuple, kwargs: dict) -> Any:
        view, hooks = self.view, HookSet()
        bound = inspect.signature(encode).bind(*args, **kwargs)
        bound.apply_defaults()
        given = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        vision, packed = VisionTap(view, self.reads), []  # type: ignore[var-annotated]
        asked = given.get("vision_feature_layer")
        vision.patches = _given_grids(view, kind, given)
        if self.tower is not None:
            merging = Merging(view, kind, self.tower, merging_layers(view, kind, self.tower, asked), vision)
            merging.attach(hooks)
        _tap_tower(view, kind, vision, hooks, view.tapped_layers(kind, asked), self.self_check)
        if view.family.packer is not None and kind == "image":
            _tap_packer(view, view.family.packer, packed.extend, hooks)
        try:
            output = encode(*args, **kwargs)
        finally:
            hooks.remove()
        features = output.pooler_output if hasattr(output, "pooler_output") else output
        features = [feature.flatten(0, -2) for feature in features]  # before transformers 5.20 frame by frame
        images = _describe(view, kind, vision, features, packed, given)
        if self.tower is not None:
            vision.merged = merging.outcome()
        note = Note(images, len(features), vision)
        if not view.family.projected and vision.may_read("features"):
            vision.keep_features(features, images)
        vars(output)[_NOTE] = note
        for features in _carriers(output.pooler_output):  # accelerate rebuilds outputs around the same tensors
            setattr(features, _NOTE, note)
        self.on_note(kind, note)
        return output


def _tap_tower(
    view: ModelView, kind: Kind, vision: VisionTap, hooks: HookSet, chosen: list[int], self_check: bool
) -> None:
    layers, made, lead = view.tower_layers(kind), chosen[-1], view.has_class_token
    if made >= 0:
        vision.made = AttentionTap(made, lead)
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

    hooks.before(view.tower(kind), see_tower)
    if vision.made is not None:
        hooks.before(layers[made], see_layer)
    if view.has_class_token and vision.may_read("class_token"):
        hooks.after(view.tower(kind), see_class_token)
    hooks.before(view.projector, see_features)
    if read:
        owners = {number: layers[number] for number in read}
        hooks.enter(Capture(owners, lambda number, call: read[number].see(call), self_check))


def _tap_packer(view: ModelView, name: str, found: Callable[[list[Image]], None], hooks: HookSet) -> None:
    pack = getattr(view.base, name)
    signature = inspect.signature(pack)

    @wraps(pack)
    def packing(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = dict(bound.arguments)
        features = list(options.pop(next(iter(signature.parameters))))
        found(packed_images(pack, features, options, view.family.unresampled))
        return pack(*args, **kwargs)

    hooks.override(view.base, name, packing)


def _given_grids(view: ModelView, kind: Kind, given: dict) -> tuple[Side, ...]:
    """The patch grids of all pictures, where they come with the pixels; none where all have one size."""
    if (name := view.family.grids.get(kind)) is not None:
        return tuple((h, w) for t, h, w in given[name].tolist() for _ in range(t))
    if view.family.sizes is not None and given.get(view.family.sizes) is not None:
        patch = view.config.vision_config.patch_size
        return tuple((int(h) // patch, int(w) // patch) for h, w in given[view.family.sizes])
    return ()


def _describe(
    view: ModelView, kind: Kind, vision: VisionTap, features: list[torch.Tensor], packed: list[Image], given: dict
) -> list[Image]:
    """The images behind the features; also completes the tap with the grids of all pictures."""
    frames: list[int] | None = None
    if (name := view.family.grids.get(kind)) is not None:
        frames = given[name][:, 0].tolist()
        if view.family.windows:
            size = view.config.vision_config
            vision.windows, _ = get_vision_window_index(
                given[name], size.spatial_merge_size, size.window_size, size.patch_size
            )
    elif vision.patches:
        frames = [1] * len(vision.patches)
    else:
        vision.patches = _uniform(view, vision)
    if packed:
        vision.tokens = packed[0].sides
        return packed
    images = _unpacked(view, kind, vision, features, frames)
    if kind == "video" and frames is None:
        videos = given["pixel_values_videos"].shape[0]
        images = _as_videos(images, videos)
    return images


def _uniform(view: ModelView, vision: VisionTap) -> tuple[Side, ...]:
    """The patch grids of pictures of one size, from what the tower's layer, or the projector, took in."""
    if vision.taken is None or len(vision.taken) != 3:
        raise InputError("the vision tower did not run picture by picture, as it does in every supported model")
    pictures, patches, _ = vision.taken
    count = patches - int(view.has_class_token and vision.made is not None)
    side = round(count**0.5)
    return ((side, side) if side * side == count else (1, count),) * pictures


def _unpacked(
    view: ModelView, kind: Kind, vision: VisionTap, features: list[torch.Tensor], frames: list[int] | None
) -> list[Image]:
    """Images whose features are picture after picture, each with a class token before it or a newline after all."""
    pictures, total = len(vision.patches), sum(map(len, features))
    if frames is not None:
        counts = [len(feature) // t for feature, t in zip(features, frames, strict=True) for _ in range(t)]
    elif total % pictures == 0:
        counts = [total // pictures] * pictures
        frames = [len(feature) // counts[0] for feature in features]
    else:
        frames = [pictures // len(features)] * len(features)
        counts = [len(features[0]) // frames[0]] * pictures
    lead = trail = 0
    sides = [token_side(patch, count) for patch, count in zip(vision.patches, counts, strict=True)]
    if None in sides:  # one token more than patches
        sides = [token_side(patch, count - 1) for patch, count in zip(vision.patches, counts, strict=True)]
        lead, trail = int(view.has_class_token), int(not view.has_class_token)
    if None in sides or sum(frames) != pictures:
        raise InputError(f"{len(features)} images came out of {pictures} pictures in a way seeless has not seen before")
    vision.tokens = tuple(side for side in sides if side is not None)
    apart = kind == "image" and kind not in view.family.grids  # every picture is an image of its own
    images, first = [], 0
    for feature, t in zip(features, frames, strict=True):
        if t == 0:  # a row of the batch without images
            continue
        device = feature.device
        crop, patch = [], []
        for number in range(first, first + t):
            height, width = vision.tokens[number]
            patch.append(torch.arange(-lead, height * width + trail, device=device))
            patch[-1][height * width + lead :] = NO_PATCH
            crop.append(torch.full_like(patch[-1], number))
        extra = len(feature) - sum(map(len, patch))
        patch.append(torch.full((extra,), NO_PATCH, device=device))
        crop.append(torch.full((extra,), first, device=device))
        if apart:
            images += [Image(c, p, vision.tokens) for c, p in zip(crop, patch, strict=True) if len(c)]
        else:
            images.append(Image(torch.cat(crop), torch.cat(patch), vision.tokens, kind == "video"))
        first += t
    return images


def _as_videos(images: list[Image], videos: int) -> list[Image]:
    """Frames that came out as images of their own, joined to videos."""
    size = len(images) // videos
    groups = [images[i : i + size] for i in range(0, len(images), size)]
    return [
        Image(
            torch.cat([image.crop for image in group]),
            torch.cat([image.patch for image in group]),
            group[0].sides,
            video=True,
        )
        for group in groups
    ]
