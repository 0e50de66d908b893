"""Where the visual tokens of a forward are, and how they group into rows, images and crops."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from seeless.errors import InputError

NO_PATCH = -1


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
    """One picture's tokens in the order the model packs them.

    Args:
        crop: `[visual]`, index of the tower's output each token comes from.
        patch: `[visual]`, which patch of that output; `NO_PATCH` for newline and class tokens.
    """

    crop: torch.Tensor
    patch: torch.Tensor


class Layout:
    """All visual tokens of one forward.

    Args:
        visual: `[batch, seq]` bool, True = visual.
        images: in the order of the batch.
        side: (height, width) of a crop's patch grid.
    """

    def __init__(self, visual: torch.Tensor, images: list[Image], side: tuple[int, int]) -> None:
        self.visual = visual
        self.columns = [row.nonzero()[:, 0] for row in visual]
        self.side = side
        counts = [len(columns) for columns in self.columns]
        if sum(counts) != sum(len(image.patch) for image in images):
            raise InputError(
                f"{sum(counts)} visual placeholders, but {sum(len(i.patch) for i in images)} visual features "
                f"of {len(images)} images"
            )
        self.images: list[list[Image]] = []
        pending = list(images)
        for row, count in enumerate(counts):
            own: list[Image] = []
            while count > 0 and pending:
                own.append(pending.pop(0))
                count -= len(own[-1].patch)
            if count:
                raise InputError(f"the placeholders of row {row} end in the middle of an image")
            self.images.append(own)

    def count(self, row: int) -> int:
        return len(self.columns[row])

    def origin(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`crop` and `patch` of all visual tokens of a row."""
        own = self.images[row]
        return torch.cat([image.crop for image in own]), torch.cat([image.patch for image in own])

    def units(self, scope: str) -> list[Unit]:
        """The units of one scope; tokens that show no patch belong to rows and images, not to crops."""
        units = []
        for row, images in enumerate(self.images):
            if not images:
                continue
            if scope == "row":
                units.append(Unit(row, torch.arange(self.count(row), device=self.visual.device), None))
                continue
            start = 0
            for image in images:
                if scope == "image":
                    here = torch.arange(len(image.patch), device=self.visual.device)
                    units.append(Unit(row, start + here, self._grid(image.patch)))
                else:
                    units.extend(self._crops(row, start, image))
                start += len(image.patch)
        return units

    def _crops(self, row: int, start: int, image: Image) -> list[Unit]:
        units = []
        for crop in image.crop[image.patch != NO_PATCH].unique().tolist():
            here = ((image.crop == crop) & (image.patch != NO_PATCH)).nonzero()[:, 0]
            units.append(Unit(row, start + here, self._grid(image.patch[here])))
        return units

    def _grid(self, patch: torch.Tensor) -> tuple[int, int, int] | None:
        """The rectangle that patches of one crop fill, if they do and in raster order."""
        if len(patch) == 0 or bool((patch == NO_PATCH).any()):
            return None
        width = self.side[1]
        rows, columns = patch // width, patch % width
        h, w = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        expected = (rows.min() + torch.arange(h, device=patch.device))[:, None] * width + columns.min()
        expected = expected + torch.arange(w, device=patch.device)
        return (1, h, w) if len(patch) == h * w and torch.equal(expected.flatten(), patch) else None


def plain_images(crops: int, tokens: int, class_token: bool, device: torch.device) -> list[Image]:
    """Images of one crop each; with `class_token` the first token of every image shows no patch."""
    patch = torch.arange(tokens, device=device) - int(class_token)
    return [Image(torch.full((tokens,), crop, device=device), patch) for crop in range(crops)]


def packed_images(pack: Callable, features: list[torch.Tensor], options: dict) -> list[Image]:
    """Images as the model's own packing lays them out: it is given numbered tokens in place of features.

    Args:
        pack: the model's packing method, returning a list with one tensor per image first.
        features: one `[crops, patches, dim]` per image.
        options: the method's other arguments; `image_newline` is replaced.
    """
    numbers, first = [], 0
    for feature in features:
        crops, patches = feature.shape[:2]
        index = torch.arange(first * patches, (first + crops) * patches, device=feature.device, dtype=torch.float64)
        numbers.append(index.view(crops, patches, 1))
        first += crops
    newline = torch.full((1,), float(NO_PATCH), device=features[0].device, dtype=torch.float64)
    if options.get("image_newline") is None:
        raise InputError("this model packs its images without newline tokens, which seeless has not seen before")
    packed = pack(numbers, **{**options, "image_newline": newline})[0]
    images = []
    for number, feature in zip(packed, features, strict=True):
        index = number[:, 0].long()
        patches = feature.shape[1]
        crop = index.clamp(min=0) // patches
        images.append(Image(crop, torch.where(index < 0, NO_PATCH, index % patches)))
    return images
