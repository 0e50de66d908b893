"""Drawings of things beside each other: words, numbers, handwritten digits and shapes, each in its own colour."""

from dataclasses import dataclass, field

import numpy as np

from seeless.reader.canvas import PATCH_SIZE, SHAPES, Canvas, fonts, glyph_inks, handwritten, shape
from seeless.reader.drawing import Drawing, Question, finished
from seeless.reader.words import WORDS
from seeless.tiny.scenes import COLOUR_NAMES

CELL = 64
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
PLACES = tuple(f"{row}-{column}" for row in ROWS for column in COLUMNS)
THINGS = ("word", "number", "digit", "shape")
MOST = 7


@dataclass
class Thing:
    """A thing in one of the nine cells; `name` is what it shows, `marks` are its numbers."""

    kind: str
    name: str
    colour: str
    row: int
    column: int
    rank: str = ""
    marks: list[int] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it is, in a word."""
        return f"{ROWS[self.row]}-{COLUMNS[self.column]}"

    @property
    def called(self) -> str:
        """What it is called in a question that does not name its colour."""
        return self.name if self.kind == "shape" else f"{self.kind} {self.name}"


def draw_things(rng: np.random.Generator, held_out: bool, fewest: int = 3) -> Drawing:
    """Up to seven things, and questions about what they are, their colours, places and sizes."""
    canvas, things = Canvas(rng), _things(rng, fewest)
    for thing in things:
        _draw(canvas, thing, sum(other.kind == thing.kind for other in things), held_out)
    return finished(canvas, _questions(things, rng))


def _things(rng: np.random.Generator, fewest: int) -> list[Thing]:
    count = int(rng.integers(fewest, MOST + 1))
    kinds = [THINGS[i] for i in rng.integers(0, len(THINGS), count)]
    cells, colours = rng.permutation(9), rng.permutation(len(COLOUR_NAMES))
    names = {
        "word": iter(rng.choice(WORDS, MOST, replace=False).tolist()),
        "number": iter(str(v) for v in 10 + rng.choice(90, MOST, replace=False)),
        "digit": iter(str(v) for v in rng.choice(10, MOST, replace=False)),
        "shape": iter(SHAPES[i] for i in rng.permutation(len(SHAPES))),
    }
    things: list[Thing] = []
    for i, kind in enumerate(kinds):
        if kind == "shape" and sum(t.kind == "shape" for t in things) == len(SHAPES):
            kind = "word"
        things.append(Thing(kind, next(names[kind]), COLOUR_NAMES[colours[i]], *divmod(int(cells[i]), 3)))
    for kind in ("number", "digit"):
        if len(alike := sorted((t for t in things if t.kind == kind), key=lambda t: int(t.name))) > 1:
            alike[0].rank, alike[-1].rank = "smallest", "largest"
    return things


def _draw(canvas: Canvas, thing: Thing, count: int, held_out: bool) -> None:
    rng, left, top = canvas.rng, thing.column * CELL, thing.row * CELL

    def mark(identity: str) -> int:
        rank = {"rank": thing.rank} if thing.rank else {}
        number = canvas.mark(
            kind=thing.kind,
            identity=identity,
            colour=thing.colour,
            row=ROWS[thing.row],
            column=COLUMNS[thing.column],
            count=str(count),
            **rank,
        )
        thing.marks.append(number)
        return number

    if thing.kind in ("word", "number"):
        large = len(thing.name) < 5 and rng.random() < 0.4
        font, height = int(rng.integers(fonts())), float(rng.uniform(18, 22) if large else rng.uniform(10, 13))
        pitch = 16 if large else 8
        x, y = _spot(left, top, len(thing.name) * pitch, 24 if large else 16, rng)
        for i, (ink, offset) in enumerate(glyph_inks(thing.name, height, font, pitch)):
            canvas.paint(ink, x + offset, y, thing.colour, mark(f"{thing.name[i]}@{i + 1}"))
        return
    if thing.kind == "digit":
        size = int(rng.integers(22, 32))
        ink = handwritten(int(thing.name), size, held_out, rng)
    else:
        size = int(rng.integers(12, 32))
        ink = shape(thing.name, size)
    x, y = _spot(left, top, size, size, rng)
    canvas.paint(ink, x, y, thing.colour, mark(thing.name))


def _spot(left: int, top: int, width: int, height: int, rng: np.random.Generator) -> tuple[float, float]:
    """Where a thing's upper left corner is in a cell, within a pixel of a corner of a patch."""
    x = left + PATCH_SIZE * rng.integers(0, (CELL - width) // PATCH_SIZE + 1)
    y = top + PATCH_SIZE * rng.integers(0, (CELL - height) // PATCH_SIZE + 1)
    return x + rng.uniform(-0.5, 1.5), y + rng.uniform(0, 2)


def _questions(things: list[Thing], rng: np.random.Generator) -> list[Question]:
    found = []
    for thing in things:
        marks = tuple(thing.marks)
        found += [
            Question(thing.kind, f"which {thing.kind} is {thing.colour}?", thing.name, marks),
            Question("colour", f"what colour is the {thing.called}?", thing.colour, marks),
            Question("where", f"where is the {thing.called}?", thing.place, marks),
        ]
        if thing.rank:
            text = f"what colour is the {thing.rank} {thing.kind}?"
            found.append(Question("extreme", text, thing.colour, marks))
            found.append(Question("extreme", f"which {thing.kind} is {thing.rank}?", thing.name, marks))
    for kind in THINGS:
        alike = [thing for thing in things if thing.kind == kind]
        marks = tuple(mark for thing in alike for mark in thing.marks)
        if alike:
            found.append(Question("count", f"how many {kind}s are there?", str(len(alike)), marks))
        if kind in ("number", "digit") and len(alike) > 1:
            first, second = (alike[i] for i in rng.choice(len(alike), 2, replace=False))
            larger = max(first, second, key=lambda thing: int(thing.name))
            text = f"which is larger, the {first.colour} or the {second.colour} {kind}?"
            about = tuple(first.marks + second.marks)
            found.append(Question("larger", text, larger.colour, about))
    return found
