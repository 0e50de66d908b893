"""Where the visual tokens of a forward are, and how they group into rows, images, crops and frames."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from seeless.errors import InputError

NO_PATCH = -1
NO_FRAME = -1


@dataclass(frozen=True)
class Unit:
    """Visual tokens that are ranked together.

    Args:
        row: of the batch.
        tokens: `[visual]`, places among the row's visual tokens, ascending.
        grid: (frames, height, width) if the tokens are a complete grid in raster order.
    """

    row: int
    tokens: torch.Tensor
    grid: tuple[int, int, int] | None


@dataclass(frozen=True)
class Image:
    """The tokens of one image or video in the order the model packs them.

    Args:
        crop: `[visual]`, index of the picture each token comes from, among all the tower took in: a tile, a frame.
        patch: `[visual]`, its place in that picture's token grid; `NO_PATCH` for newline and class tokens.
        sides: (height, width) of the token grid of every picture the tower took in.
        video: whether its pictures are frames.
    """

    crop: torch.Tensor
    patch: torch.Tensor
    sides: tuple[tuple[int, int], ...]
    video: bool = False

    @property
    def source(self) -> torch.Tensor:
        """`[visual]`, place of each token among the tokens of all pictures; `NO_PATCH` for newlines and the like."""
        sizes = torch.tensor([0, *(height * width for height, width in self.sides[:-1])], device=self.crop.device)
        return torch.where(self.patch == NO_PATCH, NO_PATCH, sizes.cumsum(0)[self.crop] + self.patch)

    @property
    def frame(self) -> torch.Tensor:
        """`[visual]`, number of each token's frame, from 0; `NO_FRAME` everywhere if this is no video."""
        return self.crop - self.crop.min() if self.video else torch.full_like(self.crop, NO_FRAME)

    def grid(self, among: torch.Tensor) -> tuple[int, int, int] | None:
        """The grid that the tokens at `among` fill, if they do and in raster order, frame after frame."""
        crop, patch = self.crop[among], self.patch[among]
        if len(patch) == 0 or bool((patch == NO_PATCH).any()):
            return None
        frames, counts = crop.unique_consecutive(return_counts=True)
        if len(frames) > 1 and not self.video:
            return None
        if len(counts.unique()) > 1 or len({self.sides[frame] for frame in frames.tolist()}) > 1:
            return None
        patch = patch.view(len(frames), -1)
        width = self.sides[int(frames[0])][1]
        down, across = (patch[0] // width).unique(), (patch[0] % width).unique()
        raster = (down[:, None] * width + across).flatten()
        complete = patch.shape[1] == len(raster) and bool((patch == raster).all())
        return (len(frames), len(down), len(across)) if complete else None

    def to(self, device: torch.device) -> "Image":
        return replace(self, crop=self.crop.to(device), patch=self.patch.to(device))


@dataclass(frozen=True)
class Placed:
    """An image in its row.

    Args:
        image: its tokens.
        tokens: `[visual]`, their places among the row's visual tokens.
        base: tokens of the tower runs before its own.
    """

    image: Image
    tokens: torch.Tensor
    base: int


@dataclass(frozen=True)
class Placeholders:
    """The placeholders of one kind, images or videos, and what stands in for them.

    Args:
        mask: `[batch, seq]` bool.
        images: in the order of the batch.
        base: tokens of the tower runs before this one.
        runs: whether one image is one unbroken run of placeholders; then crops of a run are joined to an image.
    """

    mask: torch.Tensor
    images: list[Image]
    base: int = 0
    runs: bool = False


class Layout:
    """All visual tokens of one forward: `visual` `[batch, seq]` bool, and per row its `columns` and `images`."""

    def __init__(self, kinds: list[Placeholders]) -> None:
        self.visual = torch.stack([kind.mask for kind in kinds]).any(0)
        self.columns = [row.nonzero()[:, 0] for row in self.visual]
        self.images: list[list[Placed]] = [[] for _ in self.columns]
        for kind in kinds:
            self._place(kind)
        for row in self.images:
            row.sort(key=lambda placed: int(placed.tokens[0]))

    def _place(self, kind: Placeholders) -> None:
        wanted, given = int(kind.mask.sum()), sum(len(image.patch) for image in kind.images)
        if wanted != given:
            raise InputError(f"{wanted} visual placeholders, but {given} visual features of {len(kind.images)} images")
        pending = list(kind.images)
        for row, columns in enumerate(self.columns):
            places = kind.mask[row, columns].nonzero()[:, 0]
            own: list[Placed] = []
            start = 0
            while start < len(places):
                image = pending.pop(0)
                if start + len(image.patch) > len(places):
                    raise InputError(f"the placeholders of row {row} end in the middle of an image")
                own.append(Placed(image, places[start : start + len(image.patch)], kind.base))
                start += len(image.patch)
            self.images[row] += _joined(own, columns) if kind.runs else own

    def count(self, row: int) -> int:
        return len(self.columns[row])

    def source(self, row: int) -> torch.Tensor:
        """`[visual]`, for every visual token of a row its place among the tokens of all pictures, or `NO_PATCH`."""
        result = torch.full((self.count(row),), NO_PATCH, device=self.visual.device)
        for placed in self.images[row]:
            source = placed.image.source
            result[placed.tokens] = torch.where(source == NO_PATCH, NO_PATCH, source + placed.base)
        return result

    def patch(self, row: int) -> torch.Tensor:
        """`[visual]`, for every visual token of a row its place in its picture's grid, or `NO_PATCH`."""
        result = torch.full((self.count(row),), NO_PATCH, device=self.visual.device)
        for placed in self.images[row]:
            result[placed.tokens] = placed.image.patch
        return result

    def frame(self, row: int) -> torch.Tensor:
        """`[visual]`, for every visual token of a row the number of its frame in its video, or `NO_FRAME`."""
        result = torch.full((self.count(row),), NO_FRAME, device=self.visual.device)
        for placed in self.images[row]:
            result[placed.tokens] = placed.image.frame
        return result

    def units(self, scope: str) -> list[Unit]:
        """The units of one scope; tokens that show no patch belong to rows and images, not to crops and frames."""
        units = []
        for row, images in enumerate(self.images):
            if not images:
                continue
            if scope == "row":
                everything = torch.arange(self.count(row), device=self.visual.device)
                units.append(Unit(row, everything, images[0].image.grid(everything) if len(images) == 1 else None))
                continue
            for placed in images:
                image = placed.image
                if scope == "crop" or (scope == "frame" and image.video):
                    units += _crops(row, placed)
                else:
                    everything = torch.arange(len(image.patch), device=image.patch.device)
                    units.append(Unit(row, placed.tokens, image.grid(everything)))
        return units


def _crops(row: int, placed: Placed) -> list[Unit]:
    image, units = placed.image, []
    for crop in image.crop[image.patch != NO_PATCH].unique().tolist():
        here = ((image.crop == crop) & (image.patch != NO_PATCH)).nonzero()[:, 0]
        units.append(Unit(row, placed.tokens[here], image.grid(here)))
    return units


def _joined(placed: list[Placed], columns: torch.Tensor) -> list[Placed]:
    """Crops in one unbroken run of columns as one image."""
    joined: list[Placed] = []
    for crop in placed:
        last = joined[-1] if joined else None
        if last is None or int(columns[last.tokens[-1]]) + 1 != int(columns[crop.tokens[0]]):
            joined.append(crop)
            continue
        image = replace(
            last.image,
            crop=torch.cat([last.image.crop, crop.image.crop]),
            patch=torch.cat([last.image.patch, crop.image.patch]),
        )
        joined[-1] = Placed(image, torch.cat([last.tokens, crop.tokens]), last.base)
    return joined


def packed_images(pack: Callable, features: list[torch.Tensor], options: dict, unresampled: dict) -> list[Image]:
    """Images as the model's own packing lays them out: it is given numbered tokens in place of features.

    A packer may shrink the canvas of an image's tiles by interpolation. Then it is first run without (`unresampled`),
    which shows the canvas; a second run on the canvas' own coordinates shows where each token was sampled, and the
    nearest patch there counts as its origin.

    Args:
        pack: the model's packing method, returning a list with one tensor per image first.
        features: one `[crops, patches, dim]` per image.
        options: the method's other arguments; `image_newline` is replaced.
        unresampled: options with which nothing is interpolated.
    """
    if options.get("image_newline") is None:
        raise InputError("this model packs its images without newline tokens, which seeless has not seen before")
    device, patches = features[0].device, features[0].shape[1]
    side = round(patches**0.5)
    sides = ((side, side) if side * side == patches else (1, patches),) * sum(map(len, features))
    images, first = [], 0
    for number, feature in enumerate(features):
        alone = {key: _only(value, number, len(features)) for key, value in options.items()}
        newline = torch.full((1,), float(NO_PATCH), device=device, dtype=torch.float64)
        numbers = torch.arange(feature.shape[0] * patches, device=device, dtype=torch.float64).view(-1, patches, 1)
        exact = {**alone, **unresampled, "image_newline": newline}
        index = pack([numbers], **exact)[0][0][:, 0].round().long()
        if unresampled:
            index = _nearest(pack, numbers, index, alone)
        crop = first + index.clamp(min=0) // patches
        images.append(Image(crop, torch.where(index < 0, NO_PATCH, index % patches), sides))
        first += len(feature)
    return images


def _only(value: object, number: int, images: int) -> object:
    """One image's part of an option that lists all images."""
    listed = isinstance(value, torch.Tensor | list | tuple) and len(value) == images and not _is_vector(value)
    return value[number : number + 1] if listed else value  # type: ignore[index]


def _is_vector(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim < 2


def _nearest(pack: Callable, numbers: torch.Tensor, index: torch.Tensor, options: dict) -> torch.Tensor:
    """`index` of the tokens that really come out, given that of the tokens of the canvas before resampling."""
    patches = numbers.shape[1]
    if len(numbers) == 1:
        return index
    canvas = index[patches:]  # the base crop comes first and is never resampled
    width = int((canvas == NO_PATCH).nonzero()[0])
    canvas = canvas.view(-1, width + 1)[:, :width]
    at = torch.full((*numbers.shape[:2], 2), torch.nan, device=numbers.device, dtype=numbers.dtype)
    rows, columns = torch.meshgrid(*(torch.arange(n, device=canvas.device) for n in canvas.shape), indexing="ij")
    at.view(-1, 2)[canvas] = torch.stack([rows, columns], -1).to(at.dtype)
    newline = torch.full((2,), float(NO_PATCH), device=numbers.device, dtype=torch.float64)
    sampled = pack([at], **{**options, "image_newline": newline})[0][0][patches:]
    real = sampled[:, 0] >= 0
    row = sampled[:, 0].round().long().clamp(0, len(canvas) - 1)
    column = sampled[:, 1].round().long().clamp(0, width - 1)
    return torch.cat([index[:patches], torch.where(real, canvas[row, column], NO_PATCH)])
