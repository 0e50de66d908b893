"""Drawings: what marks say is what pixels show, and answers are what follows from the marks."""

import re

import numpy as np
import pytest

from seeless.reader import KINDS, draw_drawing
from seeless.reader.canvas import PATCH_SIZE, SIDE
from seeless.reader.charts import LETTERS
from seeless.tiny.scenes import COLOURS

DRAWINGS = [draw_drawing(seed) for seed in range(60)]


def test_a_seed_is_a_drawing():
    first, again = draw_drawing(5), draw_drawing(5)
    assert (first.pixels == again.pixels).all() and first.questions == again.questions
    assert (draw_drawing(6).pixels != first.pixels).any()
    assert {question.kind for drawing in DRAWINGS for question in drawing.questions} == set(KINDS)


def test_patches_show_the_colour_of_their_mark():
    """The brightest pixels of a mark's patches are nearest to its colour, of all colours."""
    names, palette = list(COLOURS), np.array(list(COLOURS.values())) * 255
    right = asked = 0
    for drawing in DRAWINGS:
        patches = drawing.pixels.reshape(SIDE, PATCH_SIZE, SIDE, PATCH_SIZE, 3).transpose(0, 2, 1, 3, 4)
        patches = patches.reshape(SIDE**2, -1, 3).astype(float)
        for number, mark in enumerate(drawing.marks, 1):
            shown = patches[drawing.owner == number].reshape(-1, 3)
            if "colour" in mark and len(shown):
                brightest = shown[np.argsort(shown.max(1))[-12:]].mean(0)
                nearest = names[np.abs(palette - brightest).sum(1).argmin()]
                right, asked = right + (nearest == mark["colour"]), asked + 1
    assert asked > 400 and right / asked > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_marks(kind):
    """Worked out again from the marks alone: things are told apart by kind and colour, bars and points by letter."""
    asked = 0
    for drawing in DRAWINGS:
        for question in drawing.questions:
            if question.kind == kind:
                assert answer_from(drawing.marks, question.text) == question.answer, question
                asked += 1
    assert asked > 10


def things_of(marks) -> list[dict]:
    """One record per thing, bar, point or cell, with what it shows as `name`."""
    found: dict[tuple, dict] = {}
    for mark in marks:
        if mark["kind"] != "label":
            key = tuple(mark.get(name) for name in ("kind", "row", "column", "letter", "line"))
            thing = found.setdefault(key, {**mark, "name": ""})
            thing["name"] += mark.get("identity", "").partition("@")[0]
    return list(found.values())


def answer_from(marks, text: str) -> str:
    things = things_of(marks)

    def one(**words) -> dict:
        (thing,) = [t for t in things if all(t.get(name) == value for name, value in words.items())]
        return thing

    def size(thing) -> int:
        return int(thing.get("value", thing["name"] or 0))

    def called(text: str) -> dict:
        kind, _, name = text.partition(" ")
        if kind in ("bar", "point"):
            return one(kind=kind, letter=name)
        return one(kind=kind, name=name) if name else one(kind="shape", name=kind)

    if found := re.fullmatch(r"how many (\w+)s are there\?", text):
        return str(sum(t["kind"] == found[1] for t in things))
    if found := re.fullmatch(r"where is the (.+)\?", text):
        return "{row}-{column}".format(**called(found[1]))
    if found := re.fullmatch(r"what is in row (.) of column (.)\?", text):
        return one(line=found[1], letter=found[2])["name"]
    if found := re.fullmatch(r"which is larger, the (\w+) or the (\w+) (\w+)\?", text):
        return max((one(colour=c, kind=found[3]) for c in found.group(1, 2)), key=size)["colour"]
    if found := re.fullmatch(r"which is larger, (\w+) (.) or \w+ (.)\?", text):
        return max((one(kind=found[1], letter=letter) for letter in found.group(2, 3)), key=size)["letter"]
    if found := re.search(r"(largest|smallest) (\w+)\?|which (\w+) is (largest|smallest)\?", text):
        kind, least = found[2] or found[3], "smallest" in text
        thing = (min if least else max)((t for t in things if t["kind"] == kind), key=size)
        if text.startswith("which"):
            return thing["letter"] if thing.get("letter", "?") in LETTERS else thing["name"]
        return thing["colour"] if "colour" in text else str(size(thing))
    if found := re.fullmatch(r"what colour is (?:the )?(.+)\?", text):
        return called(found[1])["colour"]
    if found := re.fullmatch(r"what is the value of the (\w+) bar\?", text):
        return one(kind="bar", colour=found[1])["value"]
    if found := re.fullmatch(r"what is the value of (.+)\?", text):
        return called(found[1])["value"]
    (kind, colour) = re.fullmatch(r"which (\w+) is (\w+)\?", text).groups()
    return one(kind=kind, colour=colour)["name"]
