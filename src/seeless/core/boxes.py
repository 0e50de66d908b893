"""Where each visual token lies in its picture, and which of a row's images are crops of one picture."""

import math
from dataclasses import dataclass

import numpy as np

from seeless.core.family import Family
from seeless.core.images import NO_PATCH, Image
from seeless.core.relevance import load_tokenizer
from seeless.core.units import Placed
from seeless.errors import InputError


@dataclass(frozen=True, eq=False)
class Shown:
    """What a row shows.

    Args:
        placed: its images, in order.
        texts: per image, the ids of the text right before it; None if the input came as embeddings.
        family: how its crops stand in a prompt.
        checkpoint: what the model was loaded from.
    """

    placed: list[Placed]
    texts: list[list[int]] | None
    family: Family
    checkpoint: str

    def pictures(self) -> list[Placed]:
        """The pictures that were cut into crops, each in one, and videos.

        Raises:
            InputError: only text tells which images are crops, and there is none, or no tokenizer to read it.
        """
        if self.family.crops == "joined" or len(self.placed) < 2:
            return self.placed
        if self.texts is None:
            raise InputError(
                f"{self.family.title} cuts pictures into crops that the text between them tells apart, but this prompt "
                "came as embeddings; pass input_ids"
            )
        begins = self._begins(self.texts)
        starts = [i for i, begin in enumerate(begins) if begin]
        ends = [*starts[1:], len(begins)]
        return [_together(self.placed[start:end]) for start, end in zip(starts, ends, strict=True)]

    def _begins(self, texts: list[list[int]]) -> list[bool]:
        """Whether each image is the first of a picture."""
        if self.family.crops == "marked":  # a picture ends with the whole of it, behind the same token as the last one
            marks = [own[-1] if own else None for own in texts]
            return [True, *(mark == marks[-1] for mark in marks[:-1])]
        if self.family.crops == "numbered":  # between two pictures stands more than one token
            return [True, *(len(own) > 1 for own in texts[1:])]
        if self.family.crops == "opened":
            return [own[-1:] == texts[0][-1:] for own in texts]
        tokenizer = load_tokenizer(
            self.checkpoint,
            "which images are crops of one picture cannot be read from the text between them",
            "show one picture in a prompt, without crops",
        )
        crop = False
        begins: list[bool] = []
        for own in texts:
            text = tokenizer.decode(own[1:-1])  # between the end of an image and the beginning of the next
            crop = any(told in text for told in self.family.crops_told) or (crop and text.isspace() and " " in text)
            begins.append(not (crop and begins))
        return begins


def _together(placed: list[Placed]) -> Placed:
    """Images as the crops of one."""
    images, tokens = [each.image for each in placed], np.concatenate([each.tokens for each in placed])
    crop, patch = (np.concatenate([getattr(image, name) for image in images]) for name in ("crop", "patch"))
    return Placed(Image(crop, patch, images[0].sides, images[0].video), tokens, placed[0].base)


def arrangement(tiles: int, aspect: float) -> tuple[int, int]:
    """How many of a picture's tiles lie (across, down): of all grids of so many, the nearest to its width / height.

    >>> arrangement(6, 1.4), arrangement(6, 0.2), arrangement(2, 0.9)
    ((3, 2), (1, 6), (1, 2))
    """
    grids = [(tiles // down, down) for down in range(1, tiles + 1) if tiles % down == 0]
    return min(grids, key=lambda grid: abs(math.log(grid[0] / grid[1] / aspect)))


def boxes_of(image: Image, overview: int, aspect: float | None = None) -> np.ndarray:
    """Where each token lies in the picture as the tower saw it, `[visual, 4]` left, top, right, bottom in 0..1.

    The crop at `overview` covers the whole picture, and so does every frame of a video. So do the tiles together: those
    of LLaVA-NeXT, whose patches come row by row, each row closed by a token without a patch, and those that come tile
    by tile, in the grid that fits `aspect`, the picture's width / height; nan without.
    """
    boxes = np.full((len(image), 4), np.nan, dtype=np.float32)
    crop, patch = image.crop, image.patch
    real = patch != NO_PATCH
    order = list(dict.fromkeys(crop[real].tolist()))
    whole = order if image.video else [order[overview]]
    tiles = [number for number in order if number not in whole]
    across, down = arrangement(len(tiles), aspect) if tiles and aspect else (1, 1)
    places = dict.fromkeys(whole, (0, 0, 1, 1))
    if aspect and real.all():
        places |= {number: (i % across, i // across, across, down) for i, number in enumerate(tiles)}
    for number, (left, top, columns, rows) in places.items():
        height, width = image.sides[number]
        shown = (crop == number) & real
        row, column = top * height + patch[shown] // width, left * width + patch[shown] % width
        boxes[shown] = _boxes(row, column, rows * height, columns * width)
    if tiles and not real.all():
        shown = np.flatnonzero(np.isin(crop, tiles) & real)
        lines = np.cumsum(~real)[shown]
        row = lines - lines[0]
        across, down = int((row == 0).sum()), int(row[-1]) + 1
        boxes[shown] = _boxes(row, np.arange(len(shown)) % across, down, across)
    return boxes


def _boxes(row: np.ndarray, column: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Boxes of the cells of a grid."""
    return np.stack([column / columns, row / rows, (column + 1) / columns, (row + 1) / rows], 1)
