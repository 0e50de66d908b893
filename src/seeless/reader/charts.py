"""Drawings of bar and line charts."""

import numpy as np
from PIL import Image, ImageDraw

from seeless.reader.canvas import PATCH_SIZE, Canvas, fonts, glyph_inks, shape
from seeless.reader.drawing import Drawing, Question, finished
from seeless.tiny.scenes import COLOUR_NAMES

LETTERS = "ABCDEF"
LARGEST, UNIT = 9, 16  # what a bar can show, and how many pixels are 1


def draw_bars(rng: np.random.Generator, held_out: bool) -> Drawing:
    """Three to six bars of values 1 to 9, each in its own colour."""
    return _chart(rng, "bar")


def draw_line(rng: np.random.Generator, held_out: bool) -> Drawing:
    """Three to six points of values 1 to 9 on a line."""
    return _chart(rng, "point")


def _chart(rng: np.random.Generator, kind: str) -> Drawing:
    canvas = Canvas(rng)
    count = int(rng.integers(3, len(LETTERS) + 1))
    values = _values(count, rng)
    step = int(rng.choice((24, 32) if count < 6 else (24,)))
    left = 24 + PATCH_SIZE * int(rng.integers(0, (168 - step * count) // PATCH_SIZE + 1))
    floor = 176 - PATCH_SIZE * int(rng.integers(0, 3))
    font = int(rng.integers(fonts()))
    colours = [COLOUR_NAMES[i] for i in rng.permutation(len(COLOUR_NAMES))[:count]]
    if kind == "point":
        colours = colours[:1] * count
    for value in range(LARGEST + 1):
        height = floor - value * UNIT
        canvas.rule([(left, height), (left + step * count, height)], 110 if value in (0, 5) else 70)
        if value:
            _label(canvas, str(value), left - 12, height - 1, font, canvas.mark(kind="label", value=str(value)))
    canvas.rule([(left, floor), (left, floor - LARGEST * UNIT)])
    centres = [left + step * i + 12 for i in range(count)]
    heights = [floor - value * UNIT for value in values]
    if kind == "point":
        _join(canvas, list(zip(centres, heights, strict=True)), colours[0])
    marks = []
    for i, (value, colour) in enumerate(zip(values, colours, strict=True)):
        rank = {min(values): "smallest", max(values): "largest"}.get(value)
        words = {"kind": kind, "colour": colour, "letter": LETTERS[i], "value": str(value), "count": str(count)}
        marks.append(mark := canvas.mark(**words, **({"rank": rank} if rank else {})))
        if kind == "bar":
            width = 16
            ink = Image.new("L", (width, value * UNIT), 255)
            canvas.paint(ink, centres[i] - width / 2, heights[i], colour, mark)
        else:
            canvas.paint(shape("circle", 11), centres[i] - 5.5, heights[i] - 5.5, colour, mark)
        _label(canvas, LETTERS[i], centres[i], floor + 2, font, canvas.mark(kind="label", letter=LETTERS[i]))
    return finished(canvas, _questions(kind, values, colours, marks, rng))


def _values(count: int, rng: np.random.Generator) -> list[int]:
    """Values of which one is the smallest and one the largest."""
    while True:
        values = rng.integers(1, LARGEST + 1, count).tolist()
        if values.count(min(values)) == values.count(max(values)) == 1:
            return values


def _label(canvas: Canvas, text: str, centre: float, top: float, font: int, mark: int) -> None:
    left = centre - len(text) * PATCH_SIZE / 2
    for ink, offset in glyph_inks(text, 9, font):
        canvas.paint(ink, left + offset, top, "white", mark)


def _join(canvas: Canvas, points: list[tuple[float, float]], colour: str) -> None:
    ink = Image.new("L", canvas.image.size)
    ImageDraw.Draw(ink).line(points, fill=255, width=2)
    canvas.paint(ink, 0, 0, colour)


def _questions(
    kind: str, values: list[int], colours: list[str], marks: list[int], rng: np.random.Generator
) -> list[Question]:
    found = [Question("count", f"how many {kind}s are there?", str(len(values)), tuple(marks))]
    for letter, value, colour, mark in zip(LETTERS, values, colours, marks, strict=False):
        found.append(Question("value", f"what is the value of {kind} {letter}?", str(value), (mark,)))
        if kind == "bar":
            found.append(Question("value", f"what is the value of the {colour} bar?", str(value), (mark,)))
            found.append(Question("colour", f"what colour is bar {letter}?", colour, (mark,)))
    for rank, value in (("largest", max(values)), ("smallest", min(values))):
        i = values.index(value)
        found.append(Question("extreme", f"which {kind} is {rank}?", LETTERS[i], (marks[i],)))
        found.append(Question("extreme", f"what is the value of the {rank} {kind}?", str(value), (marks[i],)))
        if kind == "bar":
            found.append(Question("extreme", f"what colour is the {rank} bar?", colours[i], (marks[i],)))
    for _ in range(2):
        i, j = rng.choice(len(values), 2, replace=False).tolist()
        if values[i] != values[j]:
            larger = LETTERS[i if values[i] > values[j] else j]
            text = f"which is larger, {kind} {LETTERS[i]} or {kind} {LETTERS[j]}?"
            found.append(Question("larger", text, larger, (marks[i], marks[j])))
    return found
