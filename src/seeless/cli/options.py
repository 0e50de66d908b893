"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from seeless.errors import shortened
from seeless.named.knobs import parse_value

Plugins = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Python file with strategies; may be repeated.")
]


def questions(limit: str | None) -> float | int | None:
    """What `--limit` says: how many questions per task, below 1 their share; None: all."""
    if limit is None:
        return None
    try:
        number = parse_value(limit, float | int)
    except ValueError:
        number = 0
    if number <= 0 or (number > 1 and number != int(number)):
        raise typer.BadParameter(f"--limit {shortened(limit)} is not possible; give a whole number, or a share below 1")
    return number if number < 1 else int(number)
