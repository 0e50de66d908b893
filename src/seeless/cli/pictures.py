"""Save what was kept as a picture of a size to look at."""

import io
import math
import os
from pathlib import Path

from PIL import Image

import seeless as sl
from seeless.errors import brief
from seeless.outputs import UnwritableFile, check_file, replace_file, writing

SHORTEST_SIDE, LONGEST_SIDE = 480, 1920
GAP = 12


def check_target(file: Path) -> None:
    """Raise `UnwritableFile` unless a picture can be written to `file`."""
    suffix = file.suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise UnwritableFile(
            f"cannot write {brief(file)}: {brief(suffix) if suffix else 'a name without suffix'} is no picture format"
        )
    if not os.path.isdir(file.absolute().parent):
        raise UnwritableFile(f"cannot write {brief(file)}: {brief(file.absolute().parent)} is no folder")
    check_file(file)


def save_overlays(file: Path, images: list[Image.Image], reports: list[sl.Report]) -> None:
    """Write all pictures side by side with the dropped patches darkened, one line per report.

    Raises:
        UnwritableFile: the file cannot be written.
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
    drawn = io.BytesIO()
    with writing(file):
        sheet.save(drawn, Image.registered_extensions()[file.suffix.lower()])
    replace_file(file, drawn.getvalue())


def _scaled(image: Image.Image) -> Image.Image:
    """Enlarged in whole steps to the shortest side, as far as the longest allows; shrunk to the longest."""
    factor = min(math.ceil(SHORTEST_SIDE / min(image.size)), LONGEST_SIDE / max(image.size))
    factor = math.floor(factor) if factor >= 1 else factor
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
