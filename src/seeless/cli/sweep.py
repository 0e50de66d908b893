"""`seeless sweep`: many strategies at many budgets on one model."""

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import seeless as sl
from seeless.cli.console import notice, print_table, say
from seeless.cli.flags import read_flags
from seeless.named.knobs import Values, build_strategies
from seeless.named.plugins import load_plugins

ALL = "all"


def sweep(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="tiny, a hub id, a folder, or a short name of `seeless eval`.")
    ] = "tiny",
    strategies: Annotated[
        str, typer.Option(metavar="A,B,C", help="See `seeless list`, guests too; all: every strategy.")
    ] = ALL,
    keep: Annotated[
        str, typer.Option(metavar="R,R,...", help="Nominal budgets: shares (0.25) or numbers of tokens (64).")
    ] = "0.5,0.25,0.11,0.05",
    tasks: Annotated[
        str, typer.Option(metavar="A,B", help="Of lmms-eval, or the shipped scenes and scenes_choice.")
    ] = "scenes",
    include_path: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="With more tasks; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where rows go; results/sweep-MODEL.jsonl unless told.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a file that has rows.")] = False,
    plugin: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Python file that registers more strategies.")
    ] = None,
    limit: Annotated[float | None, typer.Option(min=0, help="Questions per task, below 1 their share.")] = None,
    seed: Annotated[str, typer.Option(metavar="N,N,...", help="For strategies that draw; one run for each.")] = "0",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per forward.")] = 1,
) -> None:
    """Ask the questions of some tasks with all visual tokens, and with fewer by every strategy at every budget.

    One line per run goes to the output file: what ran, scores with 95 % intervals, agreement with the untouched model's
    own answers, visual tokens per layer, FLOPs, times. What cannot run has a line that says why. Other fields of
    strategies are flags: --layer 3, --random.layer 2.
    """
    from seeless.eval.nominal import all_strategies, belongs
    from seeless.eval.sweep import Asked, plan
    from seeless.eval.targets import target
    from seeless.eval.tasks import full_names
    from seeless.named.strategies import choose

    load_plugins(plugin or [])
    names = all_strategies() if strategies == ALL else [name for name in _items(strategies) if name != "none"]
    flags = read_flags(context.args)
    for flag in flags:
        if not any(belongs(flag, choose(name)) for name in names):
            build_strategies(names[:1], {flag: flags[flag]}, lambda name, value: f"--{name} {value}".rstrip())
    budgets = [_budget(text) for text in _items(keep)]
    seeds = [_whole("--seed", text) for text in _items(seed)]
    runs = plan(names, budgets, seeds, flags)
    wanted = target(model)
    asked = Asked(
        model=wanted.name if wanted.pretrained != wanted.name and Path(model).exists() is False else model,
        tasks=full_names(_items(tasks)),
        limit=None if not limit else limit if limit < 1 else int(limit),
        batch_size=batch_size,
        include_path=tuple(include_path or []),
        command=shlex.join(["seeless", *sys.argv[1:]]),
    )
