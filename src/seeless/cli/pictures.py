"""Save what was kept as a picture of a size to look at."""

import math
from pathlib import Path

from PIL import Image

import seeless as sl

SHORTEST_SIDE, LONGEST_SIDE = 480, 1920
GAP = 12


def check_target(file: Path) -> None:
    """Raise `SeelessError` unless a picture can be written to `file`."""
    if file.suffix.lower() not in Image.registered_extensions():
        raise sl.SeelessError(f"cannot write {file}: {file.suffix or 'a name without suffix'} is no picture format")
    if not file.resolve().parent.is_dir():
        raise sl.SeelessError(f"cannot write {file}: {file.resolve().parent} is no folder")


def save_overlays(file: Path, images: list[Image.Image], reports: list[sl.Report]) -> None:
    """Write all pictures side by side with the dropped patches darkened, one line per report.

    Raises:
        SeelessError: the file cannot be written.
    """
    shown = [_scaled(image) for image in images]
    lines = [[report.overlay(image, picture=i) for i, image in enumerate(shown)] for report in reports]
    width = sum(image.width for image in shown) + GAP * (len(shown) - 1)
    height = max(image.height for image in shown)
    sheet = Image.new("RGB", (width, (height + GAP) * len(lines) - GAP), "white")
    for number, line in enumerate(lines):
        left = 0
        for picture in line:
            sheet.paste(picture, (left, number * (height + GAP)))
            left += picture.width + GAP
    try:
        sheet.save(file)
    except (OSError, ValueError) as error:
        raise sl.SeelessError(f"cannot write {file}: {error}") from error


def _scaled(image: Image.Image) -> Image.Image:
    """Enlarged in whole steps to the shortest side, as far as the longest allows; shrunk to the longest."""
    factor = min(math.ceil(SHORTEST_SIDE / min(image.size)), LONGEST_SIDE / max(image.size))
    factor = math.floor(factor) if factor >= 1 else factor
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
