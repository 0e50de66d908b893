"""What lmms-eval asks of a record of scenes.parquet: the picture, the question, and whether an answer is right."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def doc_to_visual(doc: dict[str, Any]) -> "list[Image]":
    """The scene, decoded here and not by `datasets`, so that a broken picture is one record's error."""
    from PIL import Image

    with Image.open(io.BytesIO(doc["image"]["bytes"])) as image:
        return [image.convert("RGB")]


def doc_to_text(doc: dict[str, Any]) -> str:
    """The question."""
    return doc["question"]


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
