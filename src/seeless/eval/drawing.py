"""How pictures of results look, and how they are written."""

import importlib.util
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import seeless as sl
from seeless.errors import brief, shortened
from seeless.eval.errors import InvalidRequest
from seeless.outputs import check_file, replace_file

MADE_OF = "seeless-made-of"  # the entry of a PNG that says from what it was drawn
COLOURS = ("#3b6fb6", "#f28e2b", "#c8202f", "#3fb8b0", "#3f8f3a", "#b5a11c", "#7a4fb5", "#f08fc0", "#84512f", "#6b6b6b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8")
LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))  # solid, dashes, dots, both
INK, FAINT = "#333333", "#dddddd"


def check_picture(output: Path) -> None:
    """See to it that a picture can be drawn and written, before the work begins.

    Raises:
        InvalidRequest: the kind of file is unknown.
        MissingExtra: matplotlib is not installed.
        UnwritableFile: the picture cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise sl.MissingExtra('plots need matplotlib: pip install "seeless[plot]"')
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise InvalidRequest(f"a plot is written as .png, .svg or .pdf, not as {brief(output.name)}")
    check_file(output)


def save(figure: Any, output: Path, made_of: str = "") -> None:
    """Write a figure; `made_of` says in a PNG from what it was drawn."""
    drawn = io.BytesIO()
    metadata = {MADE_OF: made_of} if output.suffix == ".png" else None
    figure.savefig(drawn, format=output.suffix[1:], dpi=130, metadata=metadata)
    replace_file(output, drawn.getvalue())


def drawn_from(picture: Path) -> str | None:
    """The `made_of` of a PNG that `plot` drew; None if it has none."""
    from PIL import Image

    with Image.open(picture) as image:
        return image.info.get(MADE_OF)


def plain(text: str) -> str:
    """A name as matplotlib draws it without taking it for a formula, or for something to hide from the legend."""
    text = shortened(text, 80).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def styles_of(strategies: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How each strategy is drawn; those of one colour have another line and another marker."""
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": LINES[i // len(COLOURS) % len(LINES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(sorted(strategies))
    }


def plain_axis(axis: Any) -> None:
    """A faint grid, and no frame."""
    axis.grid(color=FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
