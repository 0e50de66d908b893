"""`seeless plot`: pictures of sweeps."""

from pathlib import Path
from typing import Annotated

import typer

from seeless.cli.console import notice, say


def plot(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Result files of `seeless sweep`.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The picture: .png, .svg or .pdf.")] = Path("sweep.png"),
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A task's first metric unless told; agreement: with the untouched model."),
    ] = None,
) -> None:
    """Draw accuracy against visual tokens per layer and against FLOPs, with 95 % intervals and the Pareto front."""
    from seeless.eval.errors import InvalidRequest
    from seeless.eval.plot import fingerprint, plot
    from seeless.eval.rows import read_rows

    rows = []
    for file in files:
        if not file.is_file():
            raise InvalidRequest(f"there is no file {file}")
        found, broken = read_rows(file)
        rows += found
        for line in broken:
            notice(str(line))
    plot(rows, output, metric, fingerprint(files, metric))
    say(f"{output}: {sum('refused' not in row for row in rows)} runs, {sum('refused' in row for row in rows)} refused")
