"""`seeless published`: what others have published about methods, models and benchmarks."""

from typing import Annotated

import typer

from seeless.cli.catalogue import complete_name
from seeless.cli.console import print_json, print_table, say


def published(
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="As in `seeless list`, or as papers write it; none.", autocompletion=complete_name
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A hub id, a short name of `seeless eval`, or LLaVA-1.5-7B.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(metavar="NAME", help="A task of lmms-eval, or as papers write it: MME-P.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="N_OR_SHARE", help="Tokens (128), a share (0.25, 25%), or as printed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False,
) -> None:
    """Figures from papers, READMEs and project pages, with their sources. Nothing of it was measured with seeless.

    Figures that may be wrong are marked as suspect, with the reason. `seeless eval` and `seeless sweep` print what is
    published beside what they measure.
    """
    from seeless.cli.beside import mark_of, print_sources
    from seeless.eval.published import chosen

    found = chosen(method, model, benchmark, budget)
    if as_json:
        print_json([figure.to_dict() for figure in found])
        return
    rows = [
        [
            figure.strategy or figure.method,
            figure.model,
            figure.benchmark,
            figure.budget,
            f"{figure.value:g}{mark_of(figure)}",
            figure.metric,
            figure.source,
        ]
        for figure in found
    ]
    print_table(["method", "model", "benchmark", "budget", "value", "metric", "source"], rows)
    print_sources(found)
    suspect = sum(bool(figure.suspect) for figure in found)
    say(f"\n{len(found)} figures" + (f", {suspect} of them suspect" if suspect else ""))
