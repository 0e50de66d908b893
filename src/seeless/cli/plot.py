"""`seeless plot`: pictures of sweeps."""

import os
from pathlib import Path
from typing import Annotated

import typer

from seeless.cli.console import notice, say
from seeless.errors import brief


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
    from seeless.eval.rows import FAILED, REFUSED, read_rows

    rows = []
    for file in files:
        if not os.path.isfile(file):
            raise InvalidRequest(f"there is no file {brief(file)}")
        found, broken = read_rows(file)
        rows += found
        for line in broken:
            notice(str(line))
    plot(rows, output, metric, fingerprint(files, metric))
    refused, failed = (sum(reason in row for row in rows) for reason in (REFUSED, FAILED))
    told = f"{output}: {len(rows) - refused - failed} runs, {refused} refused"
    say(f"{told}, {failed} failed" if failed else told)
