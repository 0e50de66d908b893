"""Numbers of tokens that no picture has."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from torch import nn

import seeless as sl
from seeless import models
from seeless.eval.tasks import SHORT_NAMES
from seeless.strategy import Recipe


def check_count(model: nn.Module, strategy: sl.Strategy | Recipe | None, one_picture: bool = False) -> None:
    """Raise `BudgetError` if a strategy is to keep a number of tokens that a prompt of this model cannot have.

    Where a picture's size decides how many it has, or a prompt may have several, only the model's context says how
    many there can be at most. A guest's framework keeps all where there are fewer, and so does this.

    Args:
        model: or its skeleton.
        one_picture: whether every prompt has one.
    """
    for part in strategy.parts() if isinstance(strategy, sl.Strategy) else ():
        keeps = part.keep if isinstance(part.keep, list) else [part.keep]
        most = max((int(keep) for keep in keeps if isinstance(keep, Integral)), default=0)
        what, there = _too_many(model, part.scope, most, one_picture)
        if what:
            raise sl.BudgetError(f"keep={most}, but the {what} has {there} visual tokens; use --keep 1.0 to keep all")


def show_one_picture(tasks: Iterable[str]) -> bool:
    """Whether every prompt of some tasks is known to have one picture: those that are shipped."""
    return set(tasks) <= set(SHORT_NAMES.values())


def _too_many(model: nn.Module, scope: str, most: int, one_picture: bool) -> tuple[str, int]:
    """What has fewer visual tokens to rank than `most`, and how many; "" if nothing is known to."""
    crop = models.crop_tokens(model)
    if crop is not None and most > crop:
        if scope == "crop":
            return "crop", crop
        if (scope != "row" or one_picture) and models.describe(model).per == "image":
            return "image", crop
    config: Any = model.config
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return ("longest prompt of this model", longest) if longest is not None and most > longest else ("", 0)
