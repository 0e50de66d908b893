"""Where output goes: results to stdout, notices to stderr; tables as wide as there is room."""

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from seeless.outputs import FULL, UnwritableFile

WIDTH_OF_A_PIPE = 160
NARROWEST = 24  # of a column of text that wraps
GAP = 2


def console() -> Console:
    """A console on the current stdout that takes text as it is; in pipes and files 160 wide, or as `COLUMNS` says."""
    told = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else (told.isdecimal() and int(told)) or WIDTH_OF_A_PIPE
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


@contextmanager
def whole_output() -> Iterator[None]:
    """See to it that all output arrives, or that it is said that it does not.

    What the terminal or file cannot write, half of a surrogate pair in a file name for one, is written as an escape.

    Raises:
        UnwritableFile: stdout is a file on a full disk, say. A reader that has gone (`seeless list | head`) ends the
            command without a word, as it does others.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.EPIPE, *FULL):
            raise
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
        if error.errno == errno.EPIPE:
            raise SystemExit(1) from error
        raise UnwritableFile(f"cannot write the output: {error.strerror}") from error


def say(text: str = "") -> None:
    """One paragraph on stdout, never wrapped."""
    console().print(text, soft_wrap=True)


def notice(text: str) -> None:
    """Something worth knowing that is no result: one line on stderr."""
    print(text, file=sys.stderr)


def print_json(data: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(data, ensure_ascii=False))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout; where it would not be readable for want of room, one paragraph per row."""
    target = console()
    cells = [[column, *(row[i] for row in rows)] for i, column in enumerate(columns)]
    natural = [max(map(cell_len, own)) for own in cells]
    least = [max(min(NARROWEST, max(map(cell_len, own[1:]), default=0)), *map(_longest_word, own)) for own in cells]
    room = target.width - GAP * (len(columns) - 1)
    if sum(least) > room:
        _print_paragraphs(target, columns, rows)
        return
    widths = _spread(least, natural, room)
    heads = [Column(column, width=width) for column, width in zip(columns, widths, strict=True)]
    table = Table(*heads, box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))
    target.print(table)


def _print_paragraphs(target: Console, columns: list[str], rows: list[list[str]]) -> None:
    """The first cell of each row as a heading, the others below it with the names of their columns."""
    for number, (head, *rest) in enumerate(rows):
        if number > 0:
            target.print()
        target.print(Text(head, style="bold"))
        grid = Table.grid(padding=(0, GAP, 0, 0))
        for column, cell in zip(columns[1:], rest, strict=True):
            if cell:
                grid.add_row("", Text(column), Text(cell, overflow="fold"))
        target.print(grid)


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _spread(least: list[int], natural: list[int], room: int) -> list[int]:
    """Widths of columns, from their least to their natural one; those that lack the least come first."""
    widths, spare = list(least), room - sum(least)
    lacking = sorted(range(len(least)), key=lambda i: natural[i] - least[i])
    for number, i in enumerate(lacking):
        more = min(max(natural[i] - least[i], 0), spare // (len(lacking) - number))
        widths[i], spare = widths[i] + more, spare - more
    return widths
