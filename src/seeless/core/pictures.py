"""Which tokens are visual, and what the vision tower said about them: a note on every output of the tower.

`generate` may run the tower long before the forward that uses its features, and may repeat them for beams. So the
notes live on the outputs of `get_image_features` and `get_video_features` themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from seeless.core.family import Kind, ModelView
from seeless.core.images import NO_PATCH, Image, Side, packed_image, token_side
from seeless.core.units import Layout, Placeholders
from seeless.core.vision import VisionTap
from seeless.core.vision_table import Vision
from seeless.errors import InputError, UnsupportedModel

NOTE = "_seeless_note"
PIXELS: dict[Kind, tuple[str, ...]] = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
}


@dataclass(frozen=True, eq=False)
class Packing:
    """How the model's own method lays the crops of every image out as one sequence.

    Args:
        pack: the method.
        crops, patches: of every image, how many crops it has, and of how many patches each is.
        options: the method's other arguments.
        sizes: which of these have the size of every image in pixels.
    """

    pack: Callable
    crops: list[int]
    patches: int
    options: dict[str, Any]
    unresampled: dict[str, Any]

    def wanted(self) -> dict[str, torch.Tensor]:
        """Options that are needed on the host."""
        return {name: x for name, x in self.options.items() if isinstance(x, torch.Tensor) and name != "image_newline"}

    def images(self, host: Mapping[str, np.ndarray], view: ModelView) -> list[Image]:
        """The images; `view` remembers what was laid out before, by all that decides about it, the config included."""
        images, first, total = [], 0, sum(self.crops)
        known, config, tower = view.packed, view.config, view.config.vision_config
        said = str((config.image_grid_pinpoints, tower.image_size, tower.patch_size))
        given = {**self.options, **{name: host[name] for name in self.wanted()}}
        for number, crops in enumerate(self.crops):
            alone = {name: _only(value, number, len(self.crops)) for name, value in given.items()}
            plain = {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in alone.items()}
            key = crops, self.patches, str({**plain, "image_newline": plain.get("image_newline") is None}), said
            if key not in known:
                options = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in alone.items()}
                known[key] = packed_image(self.pack, crops, self.patches, options, self.unresampled)
            image = known[key]
            images.append(replace(image, crop=image.crop + first, sides=image.sides[:1] * total))
            first += crops
        return images


def _only(value: object, number: int, images: int) -> object:
    """One image's part of an option that lists all images."""
    vector = isinstance(value, np.ndarray | torch.Tensor) and value.ndim < 2
    listed = isinstance(value, np.ndarray | list | tuple) and len(value) == images and not vector
    return value[number : number + 1] if listed else value  # type: ignore[index]


@dataclass(eq=False)
class Note:
    """What is known about the outcome of one run of the tower.

    Args:
        kind: what it was run on.
        tokens: of every feature tensor the model made (rows of its `pooler_output`).
        vision: what its layers showed.
        geometry: the arguments that say how large everything is, still on the device.
        packing: how images were packed, where a method of the model does that.
        videos: how many videos there were.
    """

    kind: Kind
    tokens: list[int]
    vision: VisionTap
    geometry: dict[str, torch.Tensor]
    packing: Packing | None
    videos: int
    _images: list[Image] | None = None

    @property
    def features(self) -> int:
        """How many feature tensors the model made."""
        return len(self.tokens)

    def wanted(self) -> dict[str, torch.Tensor]:
        """What `images` needs on the host; nothing once it has been asked."""
        if self._images is not None:
            return {}
        return {**self.geometry, **(self.packing.wanted() if self.packing is not None else {})}

    def images(self, host: Mapping[str, np.ndarray]) -> list[Image]:
        """The images or videos, in order; `host` has what is `wanted`."""
        if self._images is None:
            self._images = _describe(self, host)
            self.vision.describe(self._images)
        return self._images


@dataclass
class Pictures:
    """The visual tokens of one forward.

    Args:
        kinds: of pictures the forward gets.
        notes: per kind, the note and how often the features of every row are repeated, once the tower ran.
        left_out: `[tokens of all videos]` bool, True on those that stay, where a processor leaves some out; None: all.
    """

    kinds: list[Kind]
    notes: dict[Kind, tuple[Note, int]] = field(default_factory=dict)
    left_out: torch.Tensor | None = None

    def wanted(self) -> dict[str, torch.Tensor]:
        """What `layout` needs on the host."""
        notes = {kind: self.notes[kind][0] for kind in self.kinds}
        wanted = {f"{kind}:{name}": x for kind, note in notes.items() for name, x in note.wanted().items()}
        return wanted if self.left_out is None else {**wanted, "left_out": self.left_out}

    def layout(self, masks: Mapping[Kind, np.ndarray], valid: np.ndarray | None, runs: bool, host: Mapping) -> Layout:
        """Where they are; `masks` per kind, and `valid`, `[batch, seq]` bool, are True on placeholders and on tokens
        that are no padding."""
        kinds, base = [], 0
        for kind in self.kinds:
            note, repeats = self.notes[kind]
            own = {name.removeprefix(f"{kind}:"): x for name, x in host.items() if name.startswith(f"{kind}:")}
            mask = masks[kind] if valid is None else masks[kind] & valid
            images = note.images(own)
            if kind == "video" and "left_out" in host:
                images = _staying(images, host["left_out"])
            images = _repeated(images, mask, repeats)
            kinds.append(Placeholders(mask, images, base, runs and kind == "image"))
            base += note.vision.count
        return Layout(kinds)

    @property
    def vision(self) -> Vision:
        return Vision([self.notes[kind][0].vision for kind in self.kinds])


def _staying(images: list[Image], stays: np.ndarray) -> list[Image]:
    """The images with those of their tokens that stay, `[tokens of all]` bool."""
    ends = np.cumsum([len(image) for image in images])
    pairs = zip(images, np.split(stays.astype(bool), ends[:-1]), strict=True)
    return [replace(image, crop=image.crop[own], patch=image.patch[own]) for image, own in pairs if own.any()]


def _repeated(images: list[Image], mask: np.ndarray, repeats: int) -> list[Image]:
    """The images as the rows of `mask` show them, every row of the original batch `repeats` times in succession."""
    if repeats == 1:
        return images
    result, pending = [], list(images)
    for count in mask[::repeats].sum(1).tolist():
        own: list[Image] = []
        while count > 0 and pending:
            own.append(pending.pop(0))
            count -= len(own[-1])
        result += own * repeats
    return result


def find_pictures(given: dict, view: ModelView | None = None) -> Pictures | None:
    """The pictures of a forward of the base model called with `given`; None if it gets none.

    Args:
        view: whose kinds of pictures are known; None = all are.

    Raises:
        UnsupportedModel: it gets some of a kind that the family does not describe.
    """
    ready = given.get("mm_encoder_outputs") or {}
    pictures = Pictures([])
    for kind in PIXELS:
        if ready.get(kind) is not None:
            pictures.kinds.append(kind)
            pictures.notes[kind] = read_note(ready[kind])
        elif any(given.get(name) is not None for name in PIXELS[kind]):
            pictures.kinds.append(kind)
    if view is not None and view.family.left_out is not None:
        pictures.left_out = given.get(view.family.left_out)
    if view is not None and (unknown := [kind for kind in pictures.kinds if kind not in view.kinds]):
        raise UnsupportedModel(
            f"{view.family.title} models get {unknown[0]}s here in a way that seeless does not know; pass their frames "
            "as images, or remove the handle"
        )
    return pictures if pictures.kinds else None


def read_note(output: Any) -> tuple[Note, int]:
    """The note on ready-made features, and how often they are repeated.

    Raises:
        InputError: they were made without `apply`, or cut up since.
    """
    features = entering(output)
    note, count = getattr(output, NOTE, None), len(features)
    carried = {id(found): found for f in carriers(features) if (found := getattr(f, NOTE, None))}
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


def entering(output: Any) -> Any:
    """Of what a tower's run gives, the features that stand among the decoder's embeddings; where none do, those that
    enter before its first layer.

    Raises:
        UnsupportedModel: it gives neither.
    """
    if getattr(output, "pooler_output", None) is not None:
        return output.pooler_output
    if not (by_layer := dict(getattr(output, "deepstack_features", None) or ())):
        raise UnsupportedModel(
            f"the features of a picture come as a {type(output).__name__} without pooler_output, and none are said to "
            "enter between layers (deepstack_features), so seeless does not know what of it enters the decoder"
        )
    return by_layer[min(by_layer)]


def carriers(features: Any) -> list[torch.Tensor]:
    """The tensors of some features that a note can hang on."""
    return [features] if isinstance(features, torch.Tensor) else list(features)


def lengths(features: Any) -> list[int]:
    """Tokens of every feature tensor; before transformers 5.20 those of videos come frame by frame."""
    if isinstance(features, torch.Tensor):
        return [features.shape[1:-1].numel()] * len(features)
    return [feature.shape[:-1].numel() for feature in features]


def geometry(view: ModelView, kind: Kind, given: dict) -> dict[str, torch.Tensor]:
    """What of the arguments says how large all pictures are; nothing where all have one size."""
    family = view.family
    if kind == "video" and family.frames is not None and given.get(family.frames) is None:
        raise UnsupportedModel(
            f"videos of {family.title} came without {family.frames}, by which their frames are told apart; use a "
            "release of transformers whose processor gives it"
        )
    if (name := family.places.get(kind)) is not None and given.get(name) is not None:
        ends, count = given[name].amax(1) + 1, (given[name] >= 0).all(-1).sum(1, keepdim=True)
        found = {name: torch.cat([ends, count], 1)}  # columns, rows and patches
        return found if kind == "image" or family.frames is None else {**found, family.frames: given[family.frames]}
    name = family.grids.get(kind) or family.sizes
    if name is None or given.get(name) is None:
        return {}
    return {name: torch.as_tensor(given[name])}


def frames_in_one(view: ModelView, kind: Kind, host: Mapping[str, np.ndarray]) -> list[int] | None:
    """Of every picture that comes out of the tower, the frames of a video that it is made of; None if of one each."""
    most = view.merged_frames
    if kind == "image" or most == 1:
        return None
    given = host[view.family.grids[kind]][:, 0].tolist()
    return [min(most, t - first) for t in given for first in range(0, t, most)]


def given_grids(view: ModelView, kind: Kind, host: Mapping[str, np.ndarray]) -> tuple[Side, ...]:
    """The patch grids of all pictures, from `geometry`; one for all frames of which the model makes one."""
    if (name := view.family.grids.get(kind)) is not None:
        step = view.merged_frames if kind == "video" else 1
        if host[name].shape[1] == 4:
            return tuple((h, w) for own in host[name].tolist() for h, w in (own[:2], own[2:]) if h * w)
        return tuple((h, w) for *t, h, w in host[name].tolist() for _ in range(0, t[0] if t else 1, step))
    if (name := view.family.sizes) is not None and name in host:
        patch = view.config.vision_config.patch_size
        return tuple((h // patch, w // patch) for h, w in host[name].tolist())
    if (name := view.family.places.get(kind)) is not None and name in host:
        if odd := [own for own in host[name].tolist() if own[0] * own[1] != own[2]]:
            raise InputError(f"{name} has {odd[0][2]} patches for a picture of {odd[0][1]} x {odd[0][0]}")
        return tuple((h, w) for w, h, _ in host[name].tolist())
    return ()


def _describe(note: Note, host: Mapping[str, np.ndarray]) -> list[Image]:
    """The images behind the features; also completes the tap with the grids of all pictures."""
    vision, view, kind = note.vision, note.vision.view, note.kind
    frames: list[int] | None = None
    if not vision.patches:
        vision.lay_out(given_grids(view, kind, host))
    if (name := view.family.grids.get(kind)) is not None:
        step = view.merged_frames if kind == "video" else 1
        frames = (-(-host[name][:, 0] // step)).tolist() if host[name].shape[1] == 3 else [1] * len(host[name])
        if host[name].shape[1] == 4:  # the whole picture and, in most, its crops
            frames = (1 + (host[name][:, 2:].prod(1) > 0)).tolist()
        vision.frames = frames_in_one(view, kind, host)
        vision.grids = host[name]
    elif note.geometry and kind == "video" and view.family.frames is not None:
        frames = host[view.family.frames].tolist()
    elif note.geometry:
        frames = [1] * len(vision.patches)
    if note.packing is not None:
        images = note.packing.images(host, view)
        vision.tokens = images[0].sides
        return images
    images = _unpacked(view, kind, vision, note.tokens, frames)
    return _as_videos(images, note.videos) if kind == "video" and frames is None else images


def same_sized(view: ModelView, vision: VisionTap, tokens: list[int]) -> tuple[Side, ...]:
    """The patch grids of pictures of one size, from what the tower's layer, or the projector, took in.

    Args:
        tokens: of every picture; they are its patches where the tower is not read.
    """
    if not view.family.tower_layers:
        sides = [(round(count**0.5), count) for count in tokens]
        return tuple((side, side) if side * side == count else (1, count) for side, count in sides)
    if vision.taken is None or len(vision.taken) != 3:
        raise InputError("the vision tower did not run picture by picture, as it does in every supported model")
    pictures, patches, _ = vision.taken
    count = patches - int(view.has_class_token and vision.made is not None)
    side = round(count**0.5)
    return ((side, side) if side * side == count else (1, count),) * pictures


def _unpacked(
    view: ModelView, kind: Kind, vision: VisionTap, tokens: list[int], frames: list[int] | None
) -> list[Image]:
    """Images whose features are picture after picture, each with a class token before it or a newline after all."""
    pictures, total = len(vision.patches), sum(tokens)
    if frames is not None:
        counts = [own // t for own, t in zip(tokens, frames, strict=True) for _ in range(t)]
        if vision.grids is not None and vision.grids.shape[1] == 4:  # in tokens
            counts = [height * width for height, width in vision.patches]
    elif total % pictures == 0:
        counts = [total // pictures] * pictures
        frames = [own // counts[0] for own in tokens]
    else:
        frames = [pictures // len(tokens)] * len(tokens)
        counts = [tokens[0] // frames[0]] * pictures
    lead = trail = 0
    sides = [token_side(patch, count) for patch, count in zip(vision.patches, counts, strict=True)]
    if None in sides:  # one token more than patches
        sides = [token_side(patch, count - 1) for patch, count in zip(vision.patches, counts, strict=True)]
        lead, trail = int(view.has_class_token), int(not view.has_class_token)
    if None in sides or sum(frames) != pictures:
        raise InputError(f"{len(tokens)} images came out of {pictures} pictures in a way seeless has not seen before")
    vision.tokens = tuple(side for side in sides if side is not None)
    apart = kind == "image" and kind not in view.family.grids  # every picture is an image of its own
    video = kind == "video" and (vision.grids is None or vision.grids.shape[1] == 3)
    images, first = [], 0
    for own, t in zip(tokens, frames, strict=True):
        if t == 0:  # a row of the batch without images
            continue
        crop, patch = [], []
        for number in range(first, first + t):
            height, width = vision.tokens[number]
            patch.append(np.arange(-lead, height * width + trail))
            patch[-1][height * width + lead :] = NO_PATCH
            crop.append(np.full_like(patch[-1], number))
        extra = own - sum(map(len, patch))
        patch.append(np.full(extra, NO_PATCH))
        crop.append(np.full(extra, first))
        if apart:
            images += [Image(c, p, vision.tokens) for c, p in zip(crop, patch, strict=True) if len(c)]
        else:
            images.append(Image(np.concatenate(crop), np.concatenate(patch), vision.tokens, video))
        first += t
    return images


def _as_videos(images: list[Image], videos: int) -> list[Image]:
    """Frames that came out as images of their own, joined to videos."""
    size = len(images) // videos
    groups = [images[i : i + size] for i in range(0, len(images), size)]
    return [
        Image(
            np.concatenate([image.crop for image in group]),
            np.concatenate([image.patch for image in group]),
            group[0].sides,
            video=True,
        )
        for group in groups
    ]
