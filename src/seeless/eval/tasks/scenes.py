"""What lmms-eval asks of a record of a shipped task: the picture, the question, and whether an answer is right."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


NEEDED = ("image", "question", "answer", "kind", "choices", "label")
NO_OPTION = "?"


def doc_to_visual(doc: dict[str, Any]) -> "list[Image]":
    """The picture, decoded here and not by `datasets`, so that whatever is wrong with a record is that record's error.

    Raises:
        ValueError: the record lacks something.
        OSError, SyntaxError: its picture is none, or not all of one.
    """
    from PIL import Image

    if lacks := [name for name in NEEDED if doc.get(name) in (None, "", [])]:
        raise ValueError(f"the record has no {', no '.join(lacks)}")
    if not doc["image"].get("bytes"):
        raise ValueError("the record has no picture")
    if doc["choices"][doc["label"] : doc["label"] + 1] != [doc["answer"]]:
        raise ValueError(f"the right option is number {doc['label']}, which is not the answer {doc['answer']!r}")
    with Image.open(io.BytesIO(doc["image"]["bytes"])) as image:
        image.verify()  # lmms-eval lets Pillow fill what is missing of a picture with grey
    with Image.open(io.BytesIO(doc["image"]["bytes"])) as image:
        return [image.convert("RGB")]


def doc_to_text(doc: dict[str, Any]) -> str:
    """The question; a record without is refused by `doc_to_visual`."""
    return doc["question"] or ""


def doc_to_choice(doc: dict[str, Any]) -> list[str]:
    """The options; a record without is refused by `doc_to_visual`, for which it must have one."""
    return doc["choices"] or [NO_OPTION]


def judge_generation(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 for exactly the right word, else 0: over all questions, and of the question's own kind.

    >>> judge_generation({"kind": "digit", "answer": "7"}, [" 7"])
    {'accuracy': 1.0, 'digit': 1.0}
    """
    return _scores(doc, results[0].strip() == doc["answer"])


def judge_choice(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """1 if the right option has the smallest loss, else 0; `results` are (loss, is greedy) of the options.

    >>> judge_choice({"kind": "digit", "label": 1}, [(2.5, False), (0.1, True), (3.0, False)])
    {'accuracy': 1.0, 'digit': 1.0}
    """
    losses = [loss for loss, _ in results]
    return _scores(doc, losses.index(min(losses)) == doc["label"])


def share(scores: list[float]) -> float:
    """Their mean; not a number where a kind has no question (as with a small --limit).

    >>> share([1.0, 0.0])
    0.5
    """
    return sum(scores) / len(scores) if scores else float("nan")


def _scores(doc: dict[str, Any], right: bool) -> dict[str, float]:
    return {"accuracy": float(right), doc["kind"]: float(right)}
