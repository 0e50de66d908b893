"""Where output goes: results to stdout, notices to stderr."""

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seeless.outputs import FULL, UnwritableFile

WIDTH_OF_A_PIPE = 160


def console() -> Console:
    """A console on the current stdout that takes text as it is and leaves room for tables in pipes and files."""
    width = None if sys.stdout.isatty() else WIDTH_OF_A_PIPE
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


def print_table(columns: list[str], rows: list[list[str]], title: str | None = None) -> None:
    """A table on stdout."""
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)
