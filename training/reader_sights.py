"""What a patch of a drawing shows, as numbers: what the tower is taught, and which patches it is taught on."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from seeless.reader.canvas import SHAPES, SIDE
from seeless.reader.charts import LARGEST, LETTERS
from seeless.reader.drawing import Drawing
from seeless.reader.tables import ROWS as LINES
from seeless.reader.things import COLUMNS, MOST, ROWS
from seeless.tiny.scenes import COLOUR_NAMES

CAPITALS, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
IDENTITIES = (
    *(f"{letter}@{place}" for place in range(1, 6) for letter in CAPITALS),
    *(f"{digit}@{place}" for place in (1, 2) for digit in DIGITS),
    *DIGITS,
    *SHAPES,
)
# The fields of a mark and the words each can hold; the number of a word is its place, from 1 on; 0: none of them.
FIELDS: dict[str, tuple[str, ...]] = {
    "kind": ("word", "number", "digit", "shape", "bar", "point", "cell", "label"),
    "identity": IDENTITIES,
    "colour": COLOUR_NAMES,
    "row": ROWS,
    "column": COLUMNS,
    "letter": tuple(LETTERS),
    "line": tuple(LINES),
    "value": tuple(str(value) for value in range(1, LARGEST + 1)),
    "rank": ("smallest", "largest"),
    "count": tuple(str(count) for count in range(1, MOST + 1)),
    "glyph": tuple(CAPITALS + DIGITS),
    "nth": ("1", "2", "3", "4", "5"),
}
APART = ("glyph", "nth")  # the two halves of an identity such as "M@1": easier to learn, and of no other use
SIZES = tuple(len(words) + 1 for words in FIELDS.values())
NUMBERS = {name: {word: i for i, word in enumerate(words, 1)} for name, words in FIELDS.items()}
OFFSETS = np.concatenate([[0], np.cumsum(SIZES)[:-1]])


def sights(drawing: Drawing) -> np.ndarray:
    """For each patch `[576, fields]` the number of the word of each field; 0: background, or no such word."""
    table = [[0] * len(FIELDS)]
    for mark in drawing.marks:
        identity = mark.get("identity", "")
        glyph, _, nth = identity.partition("@")
        words = {**mark, "nth": nth, "glyph": "" if identity in SHAPES else glyph}
        table.append([NUMBERS[name][words[name]] if words.get(name) else 0 for name in FIELDS])
    return np.array(table, dtype=np.uint8)[drawing.owner]


def inventory(seen: np.ndarray) -> np.ndarray:
    """Which words `[sum(SIZES)]` of all fields are anywhere in the picture."""
    present = np.zeros(sum(SIZES), dtype=np.uint8)
    present[(seen + OFFSETS).ravel()] = 1
    return present


def chosen(owner: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Which `count` patches stay, in order: those with ink, then their neighbours, then any."""
    ink = np.zeros((SIDE + 2, SIDE + 2), dtype=bool)
    ink[1:-1, 1:-1] = owner.reshape(SIDE, SIDE) > 0
    near = np.zeros((SIDE, SIDE), dtype=bool)
    for down in range(3):
        for across in range(3):
            near |= ink[down : down + SIDE, across : across + SIDE]
    rank = rng.random(SIDE**2) + near.ravel() + (owner > 0)
    return np.sort(np.argpartition(-rank, count - 1)[:count])


class Drawn(torch.utils.data.IterableDataset):
    """Batches made in a process of its own, for ever; the batch with a number is always the same.

    Args:
        make: makes the batch of a generator.
        seed: of all batches together.
        first: the number of the first batch.
    """

    def __init__(self, make: Callable[[np.random.Generator], dict[str, torch.Tensor]], seed: int, first: int) -> None:
        self.make, self.seed, self.number = make, seed, first

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield self.make(np.random.default_rng((self.seed, self.number)))
            self.number += 1


def stream(make: Callable[[np.random.Generator], dict[str, torch.Tensor]], seed: int, first: int) -> Iterator:
    """Batches from a process beside this one."""
    torch.multiprocessing.set_sharing_strategy("file_system")
    return iter(
        torch.utils.data.DataLoader(Drawn(make, seed, first), batch_size=None, num_workers=1, prefetch_factor=6)
    )
