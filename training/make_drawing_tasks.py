"""Write the records of the shipped tasks `drawings`: questions about held-out drawings, with options.

As many of every kind, up to four about one picture. Options: the right one and three others of what could be an answer
to such a question, answers of the same picture first.

    python training/make_drawing_tasks.py --output src/seeless/eval/tasks/drawings.parquet
"""

import argparse
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from make_tasks import OPTIONS, rows_of, write
from seeless.reader.canvas import SHAPES
from seeless.reader.charts import LARGEST, LETTERS
from seeless.reader.drawing import KINDS, Drawing, Question
from seeless.reader.drawings import draw_drawing
from seeless.reader.things import MOST, PLACES
from seeless.reader.words import WORDS
from seeless.tiny.scenes import COLOUR_NAMES

FIRST_SEED = 1_000_000
PER_PICTURE = 4
ANSWERS = {  # what an answer can be, by kind of question; else whatever the right one is among
    "count": tuple(str(count) for count in range(1, MOST + 1)),
    "value": tuple(str(value) for value in range(1, LARGEST + 1)),
    "digit": tuple(str(digit) for digit in range(10)),
}
SETS = (WORDS, SHAPES, COLOUR_NAMES, PLACES, tuple(LETTERS), tuple(str(number) for number in range(100)))


def held_out_questions(count: int) -> list[tuple[Drawing, Question]]:
    """`count` questions of every kind, those of a picture one after the other."""
    asked: list[tuple[Drawing, Question]] = []
    have: Counter[str] = Counter()
    seed = FIRST_SEED
    while len(asked) < count * len(KINDS):
        drawing, here = draw_drawing(seed), Counter[str]()
        for question in drawing.questions:
            if have[question.kind] < count and not here[question.kind] and here.total() < PER_PICTURE:
                asked.append((drawing, question))
                have[question.kind] += 1
                here[question.kind] += 1
        seed += 1
    return asked


def options(drawing: Drawing, question: Question, rng: np.random.Generator) -> list[str]:
    """What can be chosen from, in random order."""
    possible = ANSWERS.get(question.kind) or next(words for words in SETS if question.answer in words)
    here = [q.answer for q in drawing.questions if q.kind == question.kind and q.answer in possible]
    others = [*rng.permutation(sorted(set(here))).tolist(), *rng.permutation(possible).tolist()]
    wrong = [word for word in dict.fromkeys(others) if word != question.answer][: OPTIONS - 1]
    return rng.permutation([question.answer, *wrong]).tolist()


def records(count: int, seed: int) -> list[dict]:
    """All records."""
    return rows_of(held_out_questions(count), partial(options, rng=np.random.default_rng(seed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=20, help="of every kind")
    parser.add_argument("--seed", type=int, default=7)
    parsed = parser.parse_args()
    rows = records(parsed.questions, parsed.seed)
    write(rows, parsed.output)
    pictures = len({row["image"]["bytes"] for row in rows})
    print(f"{len(rows)} questions about {pictures} pictures, {parsed.output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
