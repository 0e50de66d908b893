"""Where each visual token lies in its picture."""

import numpy as np

from seeless.core.images import NO_PATCH, Image


def boxes_of(image: Image, overview: int) -> np.ndarray:
    """Where each token lies in the picture as the tower saw it, `[visual, 4]` left, top, right, bottom in 0..1.

    The crop at `overview` covers the whole picture, and so does every frame of a video. So do the tiles of LLaVA-NeXT
    together, whose patches come row by row, each row closed by a token without a patch.
    """
    boxes = np.full((len(image), 4), np.nan, dtype=np.float32)
    crop, patch = image.crop, image.patch
    real = patch != NO_PATCH
    whole = np.unique(crop).tolist() if image.video else [int(crop[real][overview])]
    for number in whole:
        height, width = image.sides[number]
        shown = (crop == number) & real
        row, column = patch[shown] // width, patch[shown] % width
        boxes[shown] = np.stack([column / width, row / height, (column + 1) / width, (row + 1) / height], 1)
    tiles = np.flatnonzero(~np.isin(crop, whole) & real)
    if len(tiles) and not real.all():
        lines = np.cumsum(~real)[tiles]
        line = lines - lines[0]
        across, down = int((line == 0).sum()), int(line[-1]) + 1
        row, column = line, np.arange(len(tiles)) % across
        boxes[tiles] = np.stack([column / across, row / down, (column + 1) / across, (row + 1) / down], 1)
    return boxes
