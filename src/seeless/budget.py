"""From `keep=` to whole numbers of tokens."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real

from seeless.errors import BudgetError

Budget = float | int


def check_budget(keep: object) -> None:
    """Raise `BudgetError` unless `keep` is one budget: a whole number of tokens >= 1, or a share in (0, 1]."""
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise BudgetError(f"keep={keep!r} is not a budget; give a share (0.25) or a number of tokens (64)")
    if isinstance(keep, Integral):
        if int(keep) < 1:
            raise BudgetError(f"keep={keep} keeps no token; the smallest budget is keep=1, one token per unit")
    elif not (math.isfinite(keep) and 0 < float(keep) <= 1):
        raise BudgetError(
            f"keep={keep} is not a share of the visual tokens; a float must lie in (0, 1], "
            "and a number of tokens must be a whole number such as keep=64"
        )


def check_schedule(keeps: Sequence[Budget], layers: Sequence[int]) -> None:
    """Raise `BudgetError` unless there is one budget per layer, each no larger than the one before."""
    if len(keeps) != len(layers):
        raise BudgetError(
            f"{len(layers)} layers {list(layers)} need {len(layers)} budgets, but keep={list(keeps)} has {len(keeps)}"
        )
    for keep in keeps:
        check_budget(keep)
    if list(layers) != sorted(set(layers)):
        raise BudgetError(f"layer={list(layers)} must name each layer once, in ascending order")
    for before, after in zip(keeps, keeps[1:], strict=False):
        if isinstance(before, Integral) == isinstance(after, Integral) and after > before:
            raise BudgetError(f"keep={list(keeps)} grows from {before} to {after}; tokens once dropped cannot return")


def count_kept(keep: Budget, original: int, rounding: Callable[[float], int]) -> int:
    """Tokens to keep of a unit that had `original` visual tokens: at least one, at most all.

    >>> count_kept(0.25, 576, round), count_kept(64, 576, round), count_kept(0.1111, 576, math.floor)
    (144, 64, 63)
    """
    wanted = int(keep) if isinstance(keep, Integral) else int(rounding(original * float(keep)))
    return max(1, min(wanted, original))
