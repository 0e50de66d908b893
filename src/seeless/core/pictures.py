"""Which tokens are visual, and what the vision tower said about them: notes on every image's features.

`generate` may run the tower long before the forward that uses its features, and may repeat them for beams. So the
notes live on the feature tensors themselves, one tensor per image.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import nn

from seeless.core.family import ModelView
from seeless.core.hooks import HookSet
from seeless.core.taps import VisionTap
from seeless.core.units import Image, Layout, packed_images, plain_images
from seeless.errors import InputError

_NOTE = "_seeless_note"


@dataclass(frozen=True)
class Note:
    """What is known about one image: its tokens, and the tower run they come from."""

    image: Image
    vision: VisionTap


@dataclass
class Pictures:
    """The visual tokens of one forward: `visual` `[batch, seq]` bool, and one note per image once the tower ran."""

    visual: torch.Tensor
    notes: list[Note] | None = None

    def layout(self, valid: torch.Tensor | None) -> Layout:
        """Where they are; `valid` `[batch, seq]` bool is False on padding."""
        visual = self.visual if valid is None else self.visual & valid
        device = visual.device
        images = [Image(note.image.crop.to(device), note.image.patch.to(device)) for note in self.notes or []]
        patches = max(int(image.patch.max()) for image in images) + 1
        side = round(patches**0.5)
        return Layout(visual, images, (side, side) if side * side == patches else (1, patches))

    @property
    def vision(self) -> VisionTap:
        assert self.notes is not None
        first = self.notes[0].vision
        if any(note.vision is not first for note in self.notes):
            raise InputError("the images of one forward come from several runs of the tower; encode them together")
        return first


def read_notes(features: Any) -> list[Note]:
    """The notes on ready-made image features.

    Raises:
        InputError: they were made without `apply`, or cut up since.
    """
    notes = [getattr(feature, _NOTE, None) for feature in features]
    if any(note is None for note in notes):
        raise InputError(
            "these image features were made without this handle, or were cut up (prefill_chunk_size); "
            "pass pixel_values, or call get_image_features while the handle is active"
        )
    return notes  # type: ignore[return-value]


def visual_mask(view: ModelView, given: dict) -> torch.Tensor:
    """`[batch, seq]` bool, True on image placeholders, from ids or, without them, from embeddings."""
    if (ids := given.get("input_ids")) is not None:
        return ids == view.image_token
    embeds = given["inputs_embeds"]
    table = view.base.get_input_embeddings()  # type: ignore[operator]
    return (embeds == table(torch.tensor(view.image_token, device=embeds.device)).to(embeds.dtype)).all(-1)


def noting(view: ModelView, encode: Callable, on_notes: Callable[[list[Note]], None]) -> Callable:
    """`encode`, the model's own `get_image_features`, such that every image's features carry a note.

    Args:
        on_notes: called with the notes of every run.
    """

    @wraps(encode)
    def get_image_features(*args: Any, **kwargs: Any) -> Any:
        vision, hooks = VisionTap(view), HookSet()
        packed: list[Image] = []
        asked = kwargs.get("vision_feature_layer")
        _tap_tower(view, vision, hooks, view.config.vision_feature_layer if asked is None else asked)
        if view.family.packer is not None:
            _tap_packer(view.base, view.family.packer, packed.extend, hooks)
        try:
            output = encode(*args, **kwargs)
        finally:
            hooks.remove()
        features = output.pooler_output if hasattr(output, "pooler_output") else output
        if not isinstance(features, list | tuple):
            features = list(features)
            output.pooler_output = features
        images = packed or _plain(view, vision, len(features), kwargs)
        notes = [Note(image, vision) for image in images]
        for feature, note in zip(features, notes, strict=True):
            if len(feature) != len(note.image.patch):
                raise InputError(f"an image has {len(feature)} features, but {len(note.image.patch)} were expected")
            setattr(feature, _NOTE, note)
        on_notes(notes)
        return output

    return get_image_features


def _plain(view: ModelView, vision: VisionTap, images: int, kwargs: dict) -> list[Image]:
    assert vision.features is not None
    crops, tokens = vision.features.shape[:2]
    if crops != images:
        raise InputError(f"{images} images came out of {crops} pictures; image_sizes is not supported for this model")
    strategy = kwargs.get("vision_feature_select_strategy") or view.config.vision_feature_select_strategy
    vision.class_token_in_features = strategy == "full" and view.has_class_token
    return plain_images(crops, tokens, vision.class_token_in_features, vision.features.device)


def _tap_tower(view: ModelView, vision: VisionTap, hooks: HookSet, choice: int | list[int]) -> None:
    layers = view.tower_layers
    choice = choice if isinstance(choice, int) else choice[-1]
    index = (choice if choice >= 0 else len(layers) + 1 + choice) - 1
    if index >= 0:
        vision.attention = layers[index].self_attn

        def see_attention(module: nn.Module, args: tuple, kwargs: dict) -> None:
            vision.hidden = (args[0] if args else kwargs["hidden_states"]).detach()

        hooks.before(layers[index].self_attn, see_attention)

    def see_features(module: nn.Module, args: tuple, kwargs: dict) -> None:
        vision.features = (args[0] if args else next(iter(kwargs.values()))).detach()

    hooks.before(view.projector, see_features)


def _tap_packer(owner: nn.Module, name: str, found: Callable[[list[Image]], None], hooks: HookSet) -> None:
    pack = getattr(owner, name)
    signature = inspect.signature(pack)

    @wraps(pack)
    def packing(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = dict(bound.arguments)
        features = list(options.pop(next(iter(signature.parameters))))
        found(packed_images(pack, features, options))
        return pack(*args, **kwargs)

    hooks.override(owner, name, packing)
