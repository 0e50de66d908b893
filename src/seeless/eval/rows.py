"""Result files of sweeps: one JSON object per line, only ever added to."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeless.errors import brief, system_reason
from seeless.eval.errors import InvalidRequest
from seeless.jsonl import NoJSON, read_lines

Row = dict[str, Any]
# What makes a run the same run, so that a resumed sweep knows it.
KEY = ("model", "weights", "strategy", "fields", "keep", "seed", "tasks", "limit")
UNREADABLE = "no JSON"
MOST_NAMED = 5  # broken lines of a file
REFUSED, FAILED = "refused", "failed"  # why a run has no scores: it cannot work, or it ended in an error

NUMBER = (int, float)
LARGEST = 10**300  # of whole numbers that are floats, too
EVERY = ""  # stands for all keys of an object
SCORE = {"value": NUMBER, "low": (*NUMBER, None), "high": (*NUMBER, None)}
IDENTITY = {
    **{"model": str, "weights": str, "strategy": str, "fields": (dict, None), "keep": NUMBER, "seed": (int, None)},
    **{"tasks": list, "limit": (*NUMBER, None)},
}
NUMBERS = {
    "scores": {EVERY: {EVERY: SCORE}},
    "loyalty": {"agreement": (SCORE, None), "kl": (*NUMBER, None)},
    "tokens": {"average": NUMBER},
    "flops": {"share": NUMBER},
}


@dataclass(frozen=True)
class BrokenLine:
    """A line that is no row, and why."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}; left out"


def key_of(row: Row) -> str:
    """What a row's run is known by.

    >>> row = {name: None for name in KEY}
    >>> key_of({**row, "keep": 0.5, "time": "noon"}) == key_of({**row, "keep": 0.5, "time": "night"})
    True
    """
    return json.dumps({name: row[name] for name in KEY}, sort_keys=True)


def has_scores(row: Row) -> bool:
    """Whether the run came to its end."""
    return REFUSED not in row and FAILED not in row


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last row of every run, in the order of the first ones."""
    return list({key_of(row): row for row in rows}.values())


def read_rows(file: Path) -> tuple[list[Row], list[BrokenLine]]:
    """All rows of a result file, and the lines that are none. A file that is not there has neither.

    Raises:
        InvalidRequest: the file cannot be read.
    """
    rows: list[Row] = []
    broken: list[BrokenLine] = []
    try:
        for number, value in read_lines(file):
            reason = f"{UNREADABLE} ({value})" if isinstance(value, NoJSON) else _flaw(value)
            if reason:
                broken.append(BrokenLine(file, number, reason))
            else:
                rows.append(value)
    except OSError as error:
        raise InvalidRequest(f"cannot read {brief(file)}: {system_reason(error)}") from error
    return rows, broken


def check_rows(file: Path, resume: bool) -> None:
    """Raise `InvalidRequest` if a sweep would add to a file that has lines and does not `resume` it, or has no rows."""
    if not (file.is_file() and file.stat().st_size):
        return
    if not resume:
        raise InvalidRequest(f"{file} has rows already; go on with --resume, or choose another --output")
    rows, broken = read_rows(file)
    half = len(broken) == 1 and broken[0].reason.startswith(UNREADABLE)  # a first row that was cut off
    if broken and not rows and not half:
        raise InvalidRequest(
            f"{file} is no file of a sweep (line {broken[0].line}: {broken[0].reason}), so no rows are added to it; "
            "choose another --output"
        )


def named(broken: list[BrokenLine]) -> list[str]:
    """What to say of broken lines: the first few, and how many more there are."""
    rest = len(broken) - MOST_NAMED
    more = [f"{broken[0].file}: {rest} more lines are left out"] if rest > 0 else []
    return [*map(str, broken[:MOST_NAMED]), *more]


def headline(scores: dict[str, Any]) -> dict[str, Any]:
    """The first metric of a task, which stands for it.

    >>> headline({"accuracy": {"value": 0.5}, "digit": {"value": 0.25}})
    {'value': 0.5}
    """
    return next(iter(scores.values()))


def _flaw(value: Any) -> str:
    """Why a value is no row; "" if it is one."""
    if not isinstance(value, dict):
        return "no row of a sweep, but " + brief(value, 40)
    if missing := [name for name in KEY if name not in value]:
        return f"no row of a sweep, it lacks {', '.join(missing)}"
    for reason in (REFUSED, FAILED):
        if reason in value:
            return _misfit(value, {**IDENTITY, reason: str}, "")
    if missing := [name for name in NUMBERS if name not in value]:
        return f"no row of a sweep, it lacks {', '.join(missing)}"
    if reason := _misfit(value, {**IDENTITY, **NUMBERS}, ""):
        return reason
    empty = [task for task, scores in value["scores"].items() if not scores]
    return f"scores.{empty[0]} is empty" if empty else ""


def _misfit(value: Any, shape: Any, name: str) -> str:
    """What does not have the shape it should have: a type, several, or an object of such; "" if all has."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{name} is {brief(value, 40)}, not an object"
        for key, own in shape.items():
            for each in value if key == EVERY else [key]:
                inner = f"{name}.{each}".strip(".")
                if each not in value:
                    return f"{inner} is missing"
                if reason := _misfit(value[each], own, inner):
                    return reason
        return ""
    shapes = shape if isinstance(shape, tuple) else (shape,)
    if value is None and None in shapes:
        return ""
    if objects := [each for each in shapes if isinstance(each, dict)]:
        return _misfit(value, objects[0], name)
    types = tuple(each for each in shapes if isinstance(each, type))
    huge = isinstance(value, int) and abs(value) > LARGEST
    if isinstance(value, types) and not isinstance(value, bool) and not huge:
        return ""
    return f"{name} is {brief(value, 40)}, not {_words(types)}"


def _words(types: tuple[type, ...]) -> str:
    words = {float: "a number", int: "a whole number", str: "text", dict: "an object", list: "a list"}
    return next(word for kind, word in words.items() if kind in types)
