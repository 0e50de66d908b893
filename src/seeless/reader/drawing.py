"""A drawing: a picture, what is in it, and questions about it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from seeless.reader.canvas import Canvas, Mark

KINDS = (
    "word",
    "number",
    "digit",
    "shape",
    "colour",
    "where",
    "count",
    "larger",
    "extreme",
    "value",
    "cell",
)


@dataclass(frozen=True)
class Question:
    """A question about a drawing: its `kind` (one of `KINDS`), its `text`, the one-word `answer`, and `about`, the
    numbers of the marks that one has to look at to answer it."""

    kind: str
    text: str
    answer: str
    about: tuple[int, ...]


@dataclass(frozen=True)
class Drawing:
    """One picture and what is in it: `pixels` `[192, 192, 3]` in uint8, the mark `owner` `[576]` that each patch shows
    (0: none), the `marks` (number 1 is the first), and the `questions`."""

    pixels: np.ndarray
    owner: np.ndarray
    marks: tuple[Mark, ...]
    questions: tuple[Question, ...]

    @cached_property
    def image(self) -> Image.Image:
        """The picture as an RGB PIL image of 192x192 pixels."""
        return Image.fromarray(self.pixels)


def finished(canvas: Canvas, questions: list[Question]) -> Drawing:
    """The drawing that a canvas has become, its questions in random order."""
    order = canvas.rng.permutation(len(questions))
    return Drawing(canvas.pixels(), canvas.owner(), tuple(canvas.marks), tuple(questions[i] for i in order))
