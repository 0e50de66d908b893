"""Result files of sweeps: one JSON object per line, only ever added to."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeless.eval.errors import InvalidRequest

Row = dict[str, Any]
# What makes a run the same run, so that a resumed sweep knows it.
KEY = ("model", "weights", "strategy", "fields", "keep", "seed", "tasks", "limit")


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


def read_rows(file: Path) -> tuple[list[Row], list[BrokenLine]]:
    """All rows of a result file, and the lines that are none. A file that is not there has neither."""
    rows: list[Row] = []
    broken: list[BrokenLine] = []
    data = file.read_bytes() if file.exists() else b""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # bad JSON and bad UTF-8
            broken.append(BrokenLine(file, number, f"no JSON ({error})"))
            continue
        missing = [name for name in KEY if name not in row] if isinstance(row, dict) else list(KEY)
        if not missing and "refused" not in row and "scores" not in row:
            missing = ["scores"]
        if missing:
            broken.append(BrokenLine(file, number, f"no row of a sweep, it lacks {', '.join(missing)}"))
        else:
            rows.append(row)
    return rows, broken


def check_file(file: Path, resume: bool) -> None:
    """Raise `InvalidRequest` if a sweep would add to a file that has lines and does not `resume` it."""
    if not resume and file.is_file() and file.stat().st_size:
        raise InvalidRequest(f"{file} has rows already; go on with --resume, or choose another --output")


def headline(scores: dict[str, Any]) -> dict[str, Any]:
    """The first metric of a task, which stands for it.

    >>> headline({"accuracy": {"value": 0.5}, "digit": {"value": 0.25}})
    {'value': 0.5}
    """
    return next(iter(scores.values()))


def append_row(file: Path, row: Row) -> None:
    """Add one row: a single write, on disk when this returns. An unfinished last line stays a line of its own."""
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b", buffering=0) as out:
        if out.seek(0, os.SEEK_END) > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                line = b"\n" + line
        out.write(line)
        os.fsync(out.fileno())
