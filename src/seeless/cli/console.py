"""Where output goes: results to stdout, notices to stderr."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_OF_A_PIPE = 160


def console() -> Console:
    """A console on the current stdout that takes text as it is and leaves room for tables in pipes and files."""
    width = None if sys.stdout.isatty() else WIDTH_OF_A_PIPE
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


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
