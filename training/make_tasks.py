"""Write the shipped tasks' records: questions about held-out scenes, each with its picture as PNG and its options.

Options: of a digit or colour question the right one and three others, those of the scene first; of "how many" 1 to 5.

    python training/make_tasks.py --output src/seeless/eval/tasks/scenes.parquet
"""

import argparse
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from seeless.reader.drawing import Drawing
from seeless.tiny.scenes import COLOUR_NAMES, MAX_DIGITS, QUESTION_TYPES, Question, Scene, draw_scenes

OPTIONS = 4
TYPES = {
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "question": pa.string(),
    "answer": pa.string(),
    "kind": pa.string(),
    "choices": pa.list_(pa.string()),
    "label": pa.int64(),
}
FEATURES = {  # as `datasets` reads them: pictures stay bytes, so that whoever opens one can name it if it is broken
    "image": {"decode": False, "_type": "Image"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("question", "answer", "kind")},
    "choices": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "label": {"dtype": "int64", "_type": "Value"},
}


def held_out_questions(count: int, seed: int) -> list[tuple[Scene, Question]]:
    """At least `count` questions of every type."""
    asked: list[tuple[Scene, Question]] = []
    generator = torch.Generator().manual_seed(seed)
    while min(sum(q.kind == kind for _, q in asked) for kind in QUESTION_TYPES) < count:
        for scene in draw_scenes(50, generator, held_out=True):
            asked += [(scene, question) for question in scene.questions]
    return asked


def options(scene: Scene, question: Question, generator: torch.Generator) -> list[str]:
    """What can be chosen from, in random order; numbers in theirs."""
    if question.kind == "count":
        return [str(number) for number in range(1, MAX_DIGITS + 1)]
    if question.kind == "digit":  # a scene of many digits may show two of one colour: the other one is no option
        asked = next(colour for colour in COLOUR_NAMES if colour in question.text)
        pairs = zip(scene.digits, scene.colours, strict=True)
        also_right = {str(digit) for digit, colour in pairs if colour == asked}
        here, everything = list(map(str, scene.digits)), list(map(str, range(10)))
    else:
        also_right, here, everything = {question.answer}, list(dict.fromkeys(scene.colours)), list(COLOUR_NAMES)

    def shuffled(words: list[str]) -> list[str]:
        return [words[i] for i in torch.randperm(len(words), generator=generator).tolist()]

    others = [*shuffled(here), *shuffled([word for word in everything if word not in here])]
    return shuffled([question.answer, *[word for word in others if word not in also_right][: OPTIONS - 1]])


def png(scene: Scene | Drawing) -> bytes:
    """The picture, without loss."""
    data = io.BytesIO()
    scene.image.save(data, "PNG", optimize=True)
    return data.getvalue()


def rows_of(asked: list, options: Callable[[Any, Any], list[str]]) -> list[dict]:
    """A record of every question, in the order they were drawn.

    Args:
        asked: pictures, each with a question to it.
        options: of both makes what can be chosen from.
    """
    pictures: dict[int, bytes] = {}
    rows = []
    for scene, question in asked:
        picture = pictures.setdefault(id(scene), png(scene))
        choices = options(scene, question)
        row = {"image": {"bytes": picture, "path": None}, "question": question.text, "answer": question.answer}
        rows.append({**row, "kind": question.kind, "choices": choices, "label": choices.index(question.answer)})
    return rows


def records(count: int, seed: int) -> list[dict]:
    """All records."""
    return rows_of(held_out_questions(count, seed), partial(options, generator=torch.Generator().manual_seed(seed)))


def write(rows: list[dict], output: Path) -> None:
    """One parquet file; a picture that several questions share is stored once (dictionary encoding)."""
    about = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    table = pa.Table.from_pylist(rows, pa.schema(list(TYPES.items()), metadata=about))
    pq.write_table(table, output, compression="zstd", dictionary_pagesize_limit=2**26)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=60, help="of every type")
    parser.add_argument("--seed", type=int, default=7)
    parsed = parser.parse_args()
    rows = records(parsed.questions, parsed.seed)
    write(rows, parsed.output)
    kinds = ", ".join(f"{sum(row['kind'] == kind for row in rows)} {kind}" for kind in QUESTION_TYPES)
    print(f"{len(rows)} questions ({kinds}), {parsed.output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
