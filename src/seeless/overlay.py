"""Pictures of what was kept, and of what was ranked how."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from seeless.errors import MissingExtra

if TYPE_CHECKING:
    from PIL.Image import Image

Find = Callable[[float], tuple[torch.Tensor, torch.Tensor]]
DARK = 0.25
LOW_TO_HIGH = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))  # of the map "viridis"
COLOUR = 0.75  # how much of a patch of a heat map is its colour; the rest is the picture


def draw_overlay(image: "Image", find: Find, kept: torch.Tensor, centre_crop: bool) -> "Image":
    """Darken every part of `image` that no kept token shows.

    Args:
        find: told width / height, which of the row's tokens show the image, `[visual]`, and of each `[visual, 4]` left,
            top, right, bottom in 0..1 of what the tower saw; nan for tokens without a patch.
        kept: of the row, bool.
        centre_crop: the tower saw the centre square of the image; what lies outside is darkened, too.
    """
    picture, pil = _opened(image)
    tokens, boxes = find(picture.width / picture.height)
    light = pil.new("L", picture.size, round(255 * DARK))
    for _, box in _patches(picture.size, boxes, kept[tokens].float().where(kept[tokens], torch.nan), centre_crop):
        light.paste(255, box)
    return pil.composite(picture, pil.new("RGB", picture.size), light)


def draw_heat(image: "Image", find: Find, heat: torch.Tensor, centre_crop: bool) -> "Image":
    """Colour every patch of `image` by a number, from blue (0) over green to yellow (1); darken all else.

    Args:
        find, centre_crop: as for `draw_overlay`.
        heat: of the row's tokens, 0..1; nan: no number. Where several show a place, the highest counts.
    """
    picture, pil = _opened(image)
    tokens, boxes = find(picture.width / picture.height)
    paint, cover = pil.new("RGB", picture.size), pil.new("L", picture.size, round(255 * (1 - DARK)))
    for value, box in _patches(picture.size, boxes, heat[tokens], centre_crop):
        paint.paste(_colour(value), box)
        cover.paste(round(255 * COLOUR), box)
    return pil.composite(paint, picture, cover)


def _opened(image: "Image"):
    """The picture in RGB, and Pillow's module to draw with."""
    try:
        from PIL import Image as pil
    except ImportError as error:
        raise MissingExtra('drawing needs Pillow: pip install "seeless[cli]"') from error
    return image.convert("RGB"), pil


def _patches(
    size: tuple[int, int], boxes: torch.Tensor, values: torch.Tensor, centre_crop: bool
) -> Iterator[tuple[float, tuple[int, int, int, int]]]:
    """Patches that have a value, the lowest first, in pixels."""
    side = min(size)
    seen = (side, side) if centre_crop else size
    offset = ((size[0] - seen[0]) // 2, (size[1] - seen[1]) // 2)
    order = values.argsort(stable=True)
    for value, box in zip(values[order].tolist(), boxes[order].tolist(), strict=True):
        if value == value and box[0] == box[0]:
            left, right = (round(offset[0] + x * seen[0]) for x in (box[0], box[2]))
            top, bottom = (round(offset[1] + y * seen[1]) for y in (box[1], box[3]))
            yield value, (left, top, max(right, left + 1), max(bottom, top + 1))


def _colour(value: float) -> tuple[int, ...]:
    """Between the two nearest colours of the scale.

    >>> _colour(0.0), _colour(0.125), _colour(1.0)
    ((68, 1, 84), (64, 42, 112), (253, 231, 37))
    """
    steps = len(LOW_TO_HIGH) - 1
    first = min(int(value * steps), steps - 1)
    part = value * steps - first
    return tuple(round(a + part * (b - a)) for a, b in zip(LOW_TO_HIGH[first], LOW_TO_HIGH[first + 1], strict=True))
