"""A picture of what was kept."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from seeless.errors import MissingExtra

if TYPE_CHECKING:
    from PIL.Image import Image

DARK = 0.25


def draw_overlay(
    image: "Image",
    find: Callable[[float], tuple[torch.Tensor, torch.Tensor]],
    kept: torch.Tensor,
    centre_crop: bool,
) -> "Image":
    """Darken every part of `image` that no kept token shows.

    Args:
        find: told width / height, which of the row's tokens show the image, `[visual]`, and of each `[visual, 4]` left,
            top, right, bottom in 0..1 of what the tower saw; nan for tokens without a patch.
        kept: of the row, bool.
        centre_crop: the tower saw the centre square of the image; what lies outside is darkened, too.
    """
    try:
        from PIL import Image as pil
    except ImportError as error:
        raise MissingExtra('drawing needs Pillow: pip install "seeless[cli]"') from error
    picture = image.convert("RGB")
    width, height = picture.size
    tokens, boxes = find(width / height)
    side = min(width, height)
    seen = (side, side) if centre_crop else (width, height)
    offset = ((width - seen[0]) // 2, (height - seen[1]) // 2)
    light = pil.new("L", picture.size, round(255 * DARK))
    for box, stays in zip(boxes.tolist(), kept[tokens].tolist(), strict=True):
        if stays and box[0] == box[0]:
            left, right = (round(offset[0] + x * seen[0]) for x in (box[0], box[2]))
            top, bottom = (round(offset[1] + y * seen[1]) for y in (box[1], box[3]))
            light.paste(255, (left, top, max(right, left + 1), max(bottom, top + 1)))
    return pil.composite(picture, pil.new("RGB", picture.size), light)
