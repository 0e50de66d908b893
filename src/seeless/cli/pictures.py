"""Save what was kept as a picture large enough to look at."""

import io
import math
import os
from pathlib import Path

from PIL import Image

import seeless as sl
from seeless.errors import brief
from seeless.outputs import UnwritableFile, check_file, replace_file, writing

SHORTEST_SIDE = 480
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
    large = [_enlarge(image) for image in images]
    lines = [[report.overlay(image, picture=i) for i, image in enumerate(large)] for report in reports]
    width = sum(image.width for image in large) + GAP * (len(large) - 1)
    height = max(image.height for image in large)
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


def _enlarge(image: Image.Image) -> Image.Image:
    factor = math.ceil(SHORTEST_SIDE / min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
