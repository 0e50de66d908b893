"""Families built as others are meet the short plan by turns.

Their tinies say `sparse`. Of all combinations in which a test meets such a family the short plan has every eighth,
another one for the next family. On each of them the oracle of the package meets a method of every kind all the same
(`tests/contracts/test_every_model_type.py`); `--all` has every combination.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

EVERY = 8


def family_of(values: Iterable[Any]) -> Any:
    """The sparse family among the arguments of a test, alone or in a case; None if there is none."""
    for value in values:
        for part in value if isinstance(value, tuple) else (value,):
            if getattr(part, "sparse", False):
                return part
    return None


class Turns:
    """Whose turn it is, test by test, in the order in which they are collected."""

    def __init__(self) -> None:
        self.met: dict[tuple[str, str], int] = defaultdict(int)
        self.number: dict[str, int] = {}

    def has(self, test: str, values: Iterable[Any]) -> bool:
        """Whether a test with these arguments is in the short plan."""
        own = family_of(values)
        if own is None:
            return True
        turn = self.number.setdefault(str(own), len(self.number))
        met = self.met[test, str(own)]
        self.met[test, str(own)] += 1
        return (met + turn) % EVERY == 0
