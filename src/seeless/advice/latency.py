"""The largest budget with which a model answers as soon as wished, found by measuring."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from seeless.errors import shortened
from seeless.eval.errors import InvalidRequest

Row = dict[str, Any]  # of seeless.bench.measure


@dataclass(frozen=True)
class Wish:
    """How soon the first token is to be there: after so many seconds, or a share of what the untouched model takes."""

    seconds: float | None
    share: float | None

    def reached(self, row: Row) -> bool:
        """Whether a measured run is soon enough."""
        if "refused" in row:
            return False
        if self.seconds is not None:
            return row["seconds"]["first"]["median"] <= self.seconds
        assert self.share is not None
        return 1 / row["speed_up"]["first"] <= self.share

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"a first token after {1e3 * self.seconds:g} ms"
        return f"a first token after {100 * (self.share or 0):g} % of the untouched model's time"


def read_wish(text: str) -> Wish:
    """What `--latency` says: milliseconds, or what has a point and no unit, a share of the untouched model's time.

    >>> read_wish("250"), read_wish("12.5ms"), read_wish("0.6"), read_wish("60%")
    (Wish(seconds=0.25, share=None), Wish(seconds=0.0125, share=None), Wish(seconds=None, share=0.6), \
Wish(seconds=None, share=0.6))

    Raises:
        InvalidRequest: neither, or a share that asks for nothing.
    """
    if (found := re.fullmatch(r"(\d{0,9}\.?\d{0,9})\s*(ms|%)?", text)) is None or not re.search(r"[1-9]", found[1]):
        raise InvalidRequest(
            f"--latency {shortened(text)} is no time; give milliseconds (250) or a share of the untouched prefill "
            "(0.6, 60%)"
        )
    number, unit = float(found[1]), found[2]
    if unit == "ms" or (unit is None and "." not in found[1]):
        return Wish(number / 1e3, None)
    share = number / 100 if unit == "%" else number
    if share >= 1:
        raise InvalidRequest(
            f"--latency {shortened(text)} asks for no less than the untouched prefill; give a share below 1"
        )
    return Wish(None, share)


def largest_budgets(
    wish: Wish,
    names: Sequence[str],
    budgets: Sequence[Fraction],
    timed: Callable[[Mapping[str, Fraction]], Mapping[str, Row]],
) -> tuple[dict[str, tuple[Fraction, Row]], dict[str, tuple[Fraction, Row]]]:
    """By method, the largest budget that reaches a wish, and its row; and of those that never do the smallest.

    Budgets are halved: all methods are timed together, each at the middle of those that are still possible for it,
    which takes a method's time to fall with its budget. What comes out was itself measured.

    Args:
        budgets: descending.
        timed: by method, the row of a run at a budget.
    """
    reached: dict[str, tuple[Fraction, Row]] = {}
    short: dict[str, tuple[Fraction, Row]] = {}
    bounds = {name: (0, len(budgets)) for name in names}  # where the first budget that reaches it may be
    while asked := {name: budgets[(low + high) // 2] for name, (low, high) in bounds.items() if low < high}:
        rows = timed(asked)
        for name, budget in asked.items():
            low, high = bounds[name]
            middle = (low + high) // 2
            if wish.reached(rows[name]):
                reached[name], bounds[name] = (budget, rows[name]), (low, middle)
            else:
                short[name], bounds[name] = (budget, rows[name]), (middle + 1, high)
    return reached, {name: found for name, found in short.items() if name not in reached}
