"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Plugins = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Python file with strategies; may be repeated.")
]
