"""The tokens of one image or video: which picture each comes from, and where in it. On the host."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from seeless.errors import InputError

NO_PATCH = -1
NO_FRAME = -1
Side = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Image:
    """The tokens of one image or video in the order the model packs them.

    Args:
        crop: `[visual]`, index of the picture each token comes from, among all the tower took in: a tile, a frame.
        patch: `[visual]`, its place in that picture's token grid; `NO_PATCH` for newline and class tokens.
        sides: (height, width) of the token grid of every picture the tower took in.
        video: whether its pictures are frames.
    """

    crop: np.ndarray
    patch: np.ndarray
    sides: tuple[Side, ...]
    video: bool = False

    def __len__(self) -> int:
        return len(self.patch)

    @cached_property
    def source(self) -> np.ndarray:
        """`[visual]`, place of each token among the tokens of all pictures; `NO_PATCH` for newlines and the like."""
        first = np.cumsum([0, *(height * width for height, width in self.sides[:-1])])
        return np.where(self.patch == NO_PATCH, NO_PATCH, first[self.crop] + self.patch)

    @cached_property
    def frame(self) -> np.ndarray:
        """`[visual]`, number of each token's frame, from 0; `NO_FRAME` everywhere if this is no video."""
        return self.crop - self.crop.min() if self.video else np.full_like(self.crop, NO_FRAME)

    def grid(self, among: np.ndarray) -> tuple[int, int, int] | None:
        """The grid that the tokens at `among` fill, if they do and in raster order, frame after frame."""
        crop, patch = self.crop[among], self.patch[among]
        if len(patch) == 0 or (patch == NO_PATCH).any():
            return None
        starts = np.flatnonzero(np.diff(crop, prepend=crop[0] - 1))
        counts, frames = np.diff(starts, append=len(crop)), crop[starts]
        if len(frames) > 1 and (not self.video or (counts != counts[0]).any()):
            return None
        if len({self.sides[frame] for frame in frames}) > 1:
            return None
        width = self.sides[frames[0]][1]
        patch = patch.reshape(len(frames), -1)
        down, across = np.unique(patch[0] // width), np.unique(patch[0] % width)
        raster = (down[:, None] * width + across).reshape(-1)
        complete = patch.shape[1] == len(raster) and bool((patch == raster).all())
        return (len(frames), len(down), len(across)) if complete else None


def packed_image(pack: Callable, crops: int, patches: int, options: dict, unresampled: dict) -> Image:
    """An image as the model's own packing lays it out: it is given numbered tokens in place of features.

    A packer may shrink the canvas of an image's tiles by interpolation. Then it is first run without (`unresampled`),
    which shows the canvas; a second run on the canvas' own coordinates shows where each token was sampled, and the
    nearest patch there counts as its origin.

    Args:
        pack: the model's packing method, which returns a list with one tensor per image, alone or first of several.
        crops, patches: how many crops it has, of how many patches each.
        options: the method's other arguments for this image alone, on the host; `image_newline` is replaced.
        unresampled: options with which nothing is interpolated.
    """
    if options.get("image_newline") is None:
        raise InputError("this model packs its images without newline tokens, which seeless has not seen before")
    newline = torch.full((1,), float(NO_PATCH), dtype=torch.float64)
    numbers = torch.arange(crops * patches, dtype=torch.float64).view(-1, patches, 1)
    exact = {**options, **unresampled, "image_newline": newline}
    index = _only(pack([numbers], **exact))[:, 0].round().long().numpy()
    if unresampled and crops > 1:
        index = _nearest(pack, numbers.shape, index, options)
    side = round(patches**0.5)
    own = (side, side) if side * side == patches else (1, patches)
    crop = np.maximum(index, 0) // patches
    return Image(crop, np.where(index < 0, NO_PATCH, index % patches), (own,) * crops)


def _only(packed: list | tuple) -> torch.Tensor:
    """What a packing method made of one image."""
    images = packed[0] if isinstance(packed, tuple) else packed
    return images[0]


def _nearest(pack: Callable, shape: torch.Size, index: np.ndarray, options: dict) -> np.ndarray:
    """`index` of the tokens that really come out, given that of the tokens of the canvas before resampling."""
    crops, patches = shape[:2]
    canvas = index[patches:]  # the base crop comes first and is never resampled
    width = int(np.flatnonzero(canvas == NO_PATCH)[0])
    canvas = canvas.reshape(-1, width + 1)[:, :width]
    at = np.full((crops, patches, 2), np.nan)
    at.reshape(-1, 2)[canvas] = np.moveaxis(np.indices(canvas.shape), 0, -1)
    newline = torch.full((2,), float(NO_PATCH), dtype=torch.float64)
    sampled = _only(pack([torch.from_numpy(at)], **{**options, "image_newline": newline}))[patches:].numpy()
    row = sampled[:, 0].round().astype(int).clip(0, len(canvas) - 1)
    column = sampled[:, 1].round().astype(int).clip(0, width - 1)
    return np.concatenate([index[:patches], np.where(sampled[:, 0] >= 0, canvas[row, column], NO_PATCH)])


def token_side(patches: Side, tokens: int) -> Side | None:
    """The grid of `tokens` tokens made from a grid of patches by merging squares; None if there is none.

    >>> token_side((24, 24), 576), token_side((32, 32), 256), token_side((27, 27), 196), token_side((4, 6), 7)
    ((24, 24), (16, 16), (14, 14), None)
    """
    height, width = patches
    if height * width == tokens:
        return patches
    ratio = max(1, round((height * width / max(1, tokens)) ** 0.5))
    for side in ((height // ratio, width // ratio), (-(-height // ratio), -(-width // ratio))):
        if side[0] * side[1] == tokens:
            return side
    return None
