"""What questions of a `Context` are answered with, said where they are defined."""

from collections.abc import Callable
from typing import TypeVar

Question = TypeVar("Question", bound=Callable)


def shaped(*axes: str) -> Callable[[Question], Question]:
    """Mark a question of `Context`: what it is answered with has these axes. `models` makes up answers from them."""

    def mark(question: Question) -> Question:
        question.axes = axes  # type: ignore[attr-defined]
        return question

    return mark
