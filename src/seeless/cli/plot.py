"""`seeless plot`: pictures of sweeps and of benchmarks."""

import os
from pathlib import Path
from typing import Annotated

import typer

from seeless.cli.console import notice, say
from seeless.errors import brief


def plot(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Results of `seeless sweep`, or of `seeless bench`.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The picture: .png, .svg or .pdf.")] = Path("sweep.png"),
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A task's first metric unless told; agreement: with the untouched model."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Add published figures of the same budgets, as hollow marks.")
    ] = False,
) -> None:
    """Draw accuracy against visual tokens per layer and against FLOPs, with 95 % intervals and the Pareto front.

    Of benchmarks: time to the first token against visual tokens, and the speed-up against that of the FLOPs.
    """
    from seeless.bench.plot import is_bench, plot_bench, read_bench
    from seeless.eval.errors import InvalidRequest
    from seeless.eval.plot import fingerprint, plot
    from seeless.eval.rows import FAILED, REFUSED, named, read_rows

    for file in files:
        if not os.path.isfile(file):
            raise InvalidRequest(f"there is no file {brief(file)}")
    benchmarks = [file for file in files if is_bench(file)]
    if benchmarks:
        if len(benchmarks) < len(files):
            raise InvalidRequest("some of these files are of `seeless bench`, others are not; draw them apart")
        if metric is not None:
            raise InvalidRequest("--metric is for sweeps; a benchmark has times")
        if published:
            raise InvalidRequest("--published is for sweeps; there are no published times in the table")
        timed = [row for file in files for row in read_bench(file)]
        plot_bench(timed, output)
        say(f"{output}: {len(timed)} timed runs")
        return
    rows = []
    for file in files:
        found, broken = read_rows(file)
        rows += found
        for line in named(broken):
            notice(line)
    drawn = plot(rows, output, metric, fingerprint(files, metric, published), published)
    refused, failed = (sum(reason in row for row in rows) for reason in (REFUSED, FAILED))
    told = f"{output}: {len(rows) - refused - failed} runs, {refused} refused"
    told += f", {failed} failed" if failed else ""
    say(f"{told}, {drawn} published figures" if published else told)
