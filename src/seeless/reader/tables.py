"""Drawings of tables: rows with a number, columns with a letter, and a number in every cell."""

import numpy as np

from seeless.reader.canvas import PATCH_SIZE, Canvas, fonts, glyph_inks
from seeless.reader.drawing import Drawing, Question, finished
from seeless.tiny.scenes import COLOUR_NAMES

COLUMNS, ROWS = "ABCD", "1234"


def draw_table(rng: np.random.Generator, held_out: bool) -> Drawing:
    """Two to four rows and columns of numbers from 0 to 99."""
    canvas = Canvas(rng)
    rows, columns = (int(n) for n in rng.integers(2, 5, 2))
    width, height = int(rng.choice((32, 40))), int(rng.choice((24, 32, 40)))
    left = 24 + PATCH_SIZE * int(rng.integers(0, (168 - width * columns) // PATCH_SIZE + 1))
    top = 24 + PATCH_SIZE * int(rng.integers(0, (168 - height * rows) // PATCH_SIZE + 1))
    font, size = int(rng.integers(fonts())), float(rng.uniform(10, 13))
    for i in range(rows + 1):
        canvas.rule([(left - 16, top + i * height), (left + width * columns, top + i * height)])
    for i in range(columns + 1):
        canvas.rule([(left + i * width, top - 15), (left + i * width, top + height * rows)])
    colour = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
    for i in range(columns):
        header = canvas.mark(kind="label", letter=COLUMNS[i])
        _write(canvas, COLUMNS[i], left + i * width + 8, top - 15, 9, font, "white", [header])
    for i in range(rows):
        header = canvas.mark(kind="label", line=ROWS[i])
        _write(canvas, ROWS[i], left - 16, top + i * height + 8, 9, font, "white", [header])
    questions = []
    numbers = rng.choice(100, (rows, columns), replace=False)
    for i in range(rows):
        for j in range(columns):
            text = str(numbers[i, j])
            marks = [
                canvas.mark(
                    kind="cell",
                    identity=text if len(text) == 1 else f"{glyph}@{place}",
                    colour=colour,
                    letter=COLUMNS[j],
                    line=ROWS[i],
                )
                for place, glyph in enumerate(text, 1)
            ]
            _write(canvas, text, left + j * width + 8, top + i * height + 8, size, font, colour, marks)
            asked = f"what is in row {ROWS[i]} of column {COLUMNS[j]}?"
            questions.append(Question("cell", asked, text, tuple(marks)))
    return finished(canvas, questions)


def _write(
    canvas: Canvas, text: str, x: float, y: float, height: float, font: int, colour: str, marks: list[int]
) -> None:
    """Write a text from an upper left corner on, each glyph with its mark."""
    for (ink, offset), mark in zip(glyph_inks(text, height, font), marks, strict=True):
        canvas.paint(ink, x + offset, y, colour, mark)
