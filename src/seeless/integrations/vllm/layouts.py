"""How the tokens of a picture or video lie in it, as vLLM's own model packs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from seeless.core.images import NO_PATCH, Image, Side, packed_image
from seeless.errors import InputError


class Layouts:
    """Layouts of the pictures of one model whose pictures all have the size of its tower.

    Args:
        config: of the model, as `transformers` has it.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def side(self) -> int:
        """Rows and columns of patches of a picture in the tower."""
        return self.config.vision_config.image_size // self.config.vision_config.patch_size

    def of(self, modality: str, data: Mapping[str, Any]) -> Image:
        """The layout of one picture or video.

        Args:
            modality: "image" or "video".
            data: what the processor gave for it, or its part of what the model is given.
        """
        lead = getattr(self.config, "vision_feature_select_strategy", None) == "full" and has_class_token(self.config)
        return frames(1, self.side, self.side, lead=int(lead))

    def patches(self, images: Sequence[Image]) -> tuple[Side, ...]:
        """(height, width) of the patches of every picture of one run in the tower."""
        return images[0].sides

    def grids(self, modality: str, given: Mapping[str, Any]) -> np.ndarray | None:
        """`[items, 3]`, frames, rows and columns of patches; None for models that are not given them."""
        return None


class PackedLayouts(Layouts):
    """Those of a model that lays the tiles of an image out as one sequence, with newlines.

    Args:
        pack: vLLM's method for one image, called with the config, the newline's feature, its size and its features.
        resampled: whether it shrinks large canvases.
    """

    def __init__(self, config: Any, pack: Callable, resampled: bool = False) -> None:
        super().__init__(config)
        self.pack, self.resampled = pack, resampled

    def of(self, modality: str, data: Mapping[str, Any]) -> Image:
        if modality == "video":  # frame by frame, pooled two by two, and one newline
            count = len(_alone(data["pixel_values_videos"], 4))
            return frames(count, -(-self.side // 2), -(-self.side // 2), video=True, trail=1)
        height, width = (int(number) for number in np.asarray(data["image_sizes"]).reshape(-1))
        return self._packed(len(_alone(data["pixel_values"], 4)), height, width)

    @lru_cache(maxsize=512)  # noqa: B019  one of these per model lives as long as its process
    def _packed(self, crops: int, height: int, width: int) -> Image:
        import torch

        def pack(features: list, image_newline: Any, most: int | None = None) -> list:
            return [self.pack(self.config, image_newline, torch.tensor([height, width]), features[0], most)]

        options = {"image_newline": torch.zeros(1)}
        return packed_image(pack, crops, self.side**2, options, {"most": 1_000_000} if self.resampled else {})

    def patches(self, images: Sequence[Image]) -> tuple[Side, ...]:
        return ((self.side, self.side),) * len(images[0].sides)


class GridLayouts(Layouts):
    """Those of a model that is given the grid of every picture, of several patches to a token."""

    @property
    def merge(self) -> int:
        """Patches per side of a token."""
        return self.config.vision_config.spatial_merge_size

    def of(self, modality: str, data: Mapping[str, Any]) -> Image:
        count, height, width = (int(number) for number in np.asarray(data[f"{modality}_grid_thw"]).reshape(-1))
        return frames(count, height // self.merge, width // self.merge, video=modality == "video")

    def patches(self, images: Sequence[Image]) -> tuple[Side, ...]:
        return tuple((height * self.merge, width * self.merge) for height, width in images[0].sides)

    def grids(self, modality: str, given: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(given[f"{modality}_grid_thw"]).reshape(-1, 3)


class TiledLayouts(Layouts):
    """Those of a model that gives the tokens of an image tile after tile."""

    def of(self, modality: str, data: Mapping[str, Any]) -> Image:
        side = int(self.side * self.config.downsample_ratio)
        return frames(int(np.asarray(data["image_num_patches"]).reshape(-1)[0]), side, side)

    @property
    def side(self) -> int:
        height, width = self.config.vision_config.image_size
        patch = self.config.vision_config.patch_size
        if height != width:
            raise InputError(f"tiles of {height} x {width} pixels are no squares, so where their tokens lie is unknown")
        return height // patch[0]

    def patches(self, images: Sequence[Image]) -> tuple[Side, ...]:
        return ((self.side, self.side),) * len(images[0].sides)


def has_class_token(config: Any) -> bool:
    """Whether the first token of a model's tower is a class token."""
    from seeless.families import family_of

    return config.vision_config.model_type in family_of(config.model_type).class_token_towers


def _alone(value: Any, axes: int) -> Any:
    """What belongs to one item, of so many axes, where it may stand in a batch of one."""
    while (value.ndim if hasattr(value, "ndim") else axes + 1) > axes:
        value = value[0]
    return value


@lru_cache(maxsize=512)
def frames(count: int, height: int, width: int, video: bool = False, lead: int = 0, trail: int = 0) -> Image:
    """Pictures of one size one after the other; `lead` tokens without a patch before them, `trail` behind."""
    crop = np.repeat(np.arange(count), height * width)
    patch = np.tile(np.arange(height * width), count)
    crop, patch = np.pad(crop, (lead, trail)), np.pad(patch, (lead, trail), constant_values=NO_PATCH)
    return Image(crop, patch, ((height, width),) * count, video)


def through(images: Sequence[Image]) -> list[Image]:
    """The same with their pictures numbered through one run of the tower."""
    sides = tuple(side for image in images for side in image.sides)
    first = [0, *accumulate(len(image.sides) for image in images)]
    return [replace(image, crop=image.crop + start, sides=sides) for image, start in zip(images, first, strict=False)]
