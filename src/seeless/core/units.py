"""Where the visual tokens of a forward are, and how they group into rows, images, crops and frames. On the host."""

from dataclasses import dataclass, replace

import numpy as np

from seeless.core.images import NO_FRAME, NO_PATCH, Image
from seeless.errors import InputError


@dataclass(frozen=True, eq=False)
class Unit:
    """Visual tokens that are ranked together.

    Args:
        row: of the batch.
        tokens: `[visual]`, places among the row's visual tokens, ascending.
        grid: (frames, height, width) if the tokens are a complete grid in raster order.
    """

    row: int
    tokens: np.ndarray
    grid: tuple[int, int, int] | None


@dataclass(frozen=True, eq=False)
class Placed:
    """An image in its row.

    Args:
        image: its tokens.
        tokens: `[visual]`, their places among the row's visual tokens.
        base: tokens of the tower runs before its own.
    """

    image: Image
    tokens: np.ndarray
    base: int


@dataclass(frozen=True, eq=False)
class Placeholders:
    """The placeholders of one kind, images or videos, and what stands in for them.

    Args:
        mask: `[batch, seq]` bool.
        images: in the order of the batch.
        base: tokens of the tower runs before this one.
        runs: whether one image is one unbroken run of placeholders; then crops of a run are joined to an image.
    """

    mask: np.ndarray
    images: list[Image]
    base: int = 0
    runs: bool = False


class Layout:
    """All visual tokens of one forward: `visual` `[batch, seq]` bool, and per row its `columns` and `images`."""

    def __init__(self, kinds: list[Placeholders]) -> None:
        self.visual = np.logical_or.reduce([kind.mask for kind in kinds])
        self.columns = [np.flatnonzero(row) for row in self.visual]
        self.images: list[list[Placed]] = [[] for _ in self.columns]
        self._units: dict[tuple[str, bool], list[Unit]] = {}
        for kind in kinds:
            self._place(kind)
        for row in self.images:
            row.sort(key=lambda placed: int(placed.tokens[0]))

    def _place(self, kind: Placeholders) -> None:
        wanted, given = int(kind.mask.sum()), sum(map(len, kind.images))
        if wanted != given:
            raise InputError(f"{wanted} visual placeholders, but {given} visual features of {len(kind.images)} images")
        pending = iter(kind.images)
        for row, columns in enumerate(self.columns):
            places = np.flatnonzero(kind.mask[row, columns])
            own: list[Placed] = []
            start = 0
            while start < len(places):
                image = next(pending)
                if start + len(image) > len(places):
                    raise InputError(f"the placeholders of row {row} end in the middle of an image")
                own.append(Placed(image, places[start : start + len(image)], kind.base))
                start += len(image)
            self.images[row] += _joined(own, columns) if kind.runs else own

    def columns_of(self, unit: Unit) -> np.ndarray:
        """`[visual]`, columns of the input of a unit's tokens."""
        return self.columns[unit.row][unit.tokens]

    def count(self, row: int) -> int:
        return len(self.columns[row])

    def source(self, row: int) -> np.ndarray:
        """`[visual]`, for every visual token of a row its place among the tokens of all pictures, or `NO_PATCH`."""
        result = np.full(self.count(row), NO_PATCH)
        for placed in self.images[row]:
            source = placed.image.source
            result[placed.tokens] = np.where(source == NO_PATCH, NO_PATCH, source + placed.base)
        return result

    def patch(self, row: int) -> np.ndarray:
        """`[visual]`, for every visual token of a row its place in its picture's grid, or `NO_PATCH`."""
        result = np.full(self.count(row), NO_PATCH)
        for placed in self.images[row]:
            result[placed.tokens] = placed.image.patch
        return result

    def frame(self, row: int) -> np.ndarray:
        """`[visual]`, for every visual token of a row the number of its frame in its video, or `NO_FRAME`."""
        result = np.full(self.count(row), NO_FRAME)
        for placed in self.images[row]:
            result[placed.tokens] = placed.image.frame
        return result

    def units(self, scope: str, patches: bool = False) -> list[Unit]:
        """The units of one scope; tokens that show no patch belong to rows and images, not to crops and frames.

        Args:
            patches: leave those tokens out of rows and images, too.
        """
        if (scope, patches) not in self._units:
            self._units[scope, patches] = [
                unit for row, images in enumerate(self.images) if images for unit in self._of_row(row, scope, patches)
            ]
        return self._units[scope, patches]

    def _of_row(self, row: int, scope: str, patches: bool) -> list[Unit]:
        images = self.images[row]
        if scope == "row":
            tokens = np.arange(self.count(row))
            tokens = tokens[self.patch(row) != NO_PATCH] if patches else tokens
            alone = images[0].image if len(images) == 1 else None
            return [Unit(row, tokens, None if alone is None else alone.grid(tokens))]
        units: list[Unit] = []
        for placed in images:
            image = placed.image
            if scope == "crop" or (scope == "frame" and image.video):
                units += _crops(row, placed)
            else:
                own = np.flatnonzero(image.patch != NO_PATCH) if patches else np.arange(len(image))
                units.append(Unit(row, placed.tokens[own], image.grid(own)))
        return units


def _crops(row: int, placed: Placed) -> list[Unit]:
    image, units = placed.image, []
    for crop in np.unique(image.crop[image.patch != NO_PATCH]):
        here = np.flatnonzero((image.crop == crop) & (image.patch != NO_PATCH))
        units.append(Unit(row, placed.tokens[here], image.grid(here)))
    return units


def _joined(placed: list[Placed], columns: np.ndarray) -> list[Placed]:
    """Crops in one unbroken run of columns as one image."""
    joined: list[Placed] = []
    for crop in placed:
        last = joined[-1] if joined else None
        if last is None or columns[last.tokens[-1]] + 1 != columns[crop.tokens[0]]:
            joined.append(crop)
            continue
        image = replace(
            last.image,
            crop=np.concatenate([last.image.crop, crop.image.crop]),
            patch=np.concatenate([last.image.patch, crop.image.patch]),
        )
        joined[-1] = Placed(image, np.concatenate([last.tokens, crop.tokens]), last.base)
    return joined
