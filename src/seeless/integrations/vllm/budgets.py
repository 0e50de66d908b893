"""What decides about a picture beside the picture: how it travels to the model, and into every hash."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import seeless
from seeless.integrations.vllm.served import KEY
from seeless.strategy import Strategy

QUESTION = f"{KEY}_question"  # among the options of a request, put there by the processor
MODALITIES = ("image", "video")


def budget_field(modality: str) -> str:
    """The name under which the budget of a picture or video travels to the model.

    >>> budget_field("image")
    'seeless_image'
    """
    return f"{KEY}_{modality}"


def question_field(modality: str) -> str:
    """The name under which the question about a picture or video travels to the model.

    >>> question_field("image")
    'seeless_image_question'
    """
    return f"{budget_field(modality)}_question"


def as_bytes(text: str) -> torch.Tensor:
    """A text as numbers below 256."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def as_text(numbers: torch.Tensor | None) -> str | None:
    """The inverse of `as_bytes`.

    >>> as_text(as_bytes("which digit?"))
    'which digit?'
    """
    return None if numbers is None else bytes(numbers.tolist()).decode()


def as_numbers(keep: float | int) -> list[float]:
    """A budget as two numbers: whether it is a share, and how much.

    >>> as_numbers(0.25), as_numbers(64)
    ([1.0, 0.25], [0.0, 64.0])
    """
    return [float(isinstance(keep, float)), float(keep)]


def from_numbers(numbers: Sequence[float]) -> float | int:
    """The inverse of `as_numbers`.

    >>> from_numbers([1.0, 0.25]), from_numbers([0.0, 64.0])
    (0.25, 64)
    """
    share, much = numbers
    return much if share else int(much)


def fingerprint(strategy: Strategy) -> str:
    """Everything beside the picture that decides what is kept of it, the version of seeless included."""
    return json.dumps({"version": seeless.__version__, **strategy.to_dict()}, sort_keys=True)


def without(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a request but seeless' own.

    >>> without({"seeless": {"keep": 64}, "fps": 2})
    {'fps': 2}
    """
    return {key: value for key, value in options.items() if key not in (KEY, QUESTION)}
