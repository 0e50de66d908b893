"""`seeless sweep`: many strategies at many budgets on one model."""

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeless.cli.console import print_table, say
from seeless.cli.flags import as_flag, read_flags
from seeless.cli.options import Plugins
from seeless.eval.errors import InvalidRequest
from seeless.eval.rows import check_file, headline
from seeless.named.knobs import build_strategies, parse_value
from seeless.named.plugins import load_plugins

if TYPE_CHECKING:
    from seeless.eval.sweep import Asked, Outcome, Planned
    from seeless.named.checkpoints import LoadedModel

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
    plugin: Plugins = None,
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
    from seeless.eval.tasknames import check_tasks, lmms_eval_folder, task_names
    from seeless.eval.tasks import full_names, tasks_path
    from seeless.named.checkpoints import load_embedded, load_model
    from seeless.named.strategies import choose

    load_plugins(plugin or [])
    names = all_strategies() if strategies == ALL else [name for name in _items(strategies) if name != "none"]
    flags = read_flags(context.args)
    for flag in flags:
        if not any(belongs(flag, choose(name)) for name in names):
            build_strategies(names[:1], {flag: flags[flag]}, as_flag)
    budgets = [_budget(text) for text in _items(keep)]
    seeds = [_whole("--seed", text) for text in _items(seed)]
    runs = plan(names, budgets, seeds, flags)
    refused = [run for run in runs if run.refused]
    if refused and len(refused) == len(runs) - 1:  # all but the untouched model
        raise InvalidRequest(f"none of these runs is possible; {refused[0].label}: {refused[0].refused}")
    chosen = target(model)
    asked = Asked(
        model=model if chosen.embedded or Path(model).exists() else chosen.pretrained,
        tasks=full_names(_items(tasks)),
        limit=None if not limit else limit if limit < 1 else int(limit),
        batch_size=batch_size,
        include_path=tuple(include_path or []),
        command=shlex.join(["seeless", *sys.argv[1:]]),
    )
    file = output or Path("results") / f"sweep-{re.sub(r'[^A-Za-z0-9.]+', '-', asked.model).strip('-.')}.jsonl"
    check_file(file, resume)
    check_tasks(asked.tasks, task_names(tasks_path(), *asked.include_path, lmms_eval_folder()))
    loaded = load_embedded() if chosen.embedded else load_model(chosen.pretrained)
    outcome = _with_progress(loaded, runs, asked, file, resume)
    _print(outcome, file)


def _with_progress(loaded: "LoadedModel", runs: "list[Planned]", asked: "Asked", file: Path, resume: bool) -> "Outcome":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from seeless.eval.sweep import sweep

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=sys.stderr, highlight=False), transient=True) as progress:
        bar = progress.add_task("")

        def tell(text: str) -> None:
            progress.console.print(text, soft_wrap=True, markup=False)

        return sweep(
            loaded.model,
            loaded.processor,
            runs,
            asked,
            file,
            resume=resume,
            notice=tell,
            starts=lambda run, number, total: progress.update(
                bar, description=run.label, completed=number, total=total
            ),
            ends=lambda run, row: progress.console.print(
                f"{run.label}: {_in_short(row)}", soft_wrap=True, markup=False
            ),
        )


def _in_short(row: dict[str, Any]) -> str:
    if "refused" in row:
        return row["refused"]
    scores = (f"{100 * value['value']:.1f} %" for value in (headline(found) for found in row["scores"].values()))
    return f"{', '.join(scores)}, {row['tokens']['average']:.0f} visual tokens per layer"


def _print(outcome: "Outcome", file: Path) -> None:
    """Rows of the sweep, new and old, as a table on stdout."""
    lines, refusals = [], []
    for row in outcome.rows:
        name = row["strategy"] if row["seed"] is None else f"{row['strategy']}, seed {row['seed']}"
        if "refused" in row:
            lines.append([name, str(row["keep"]), "-", "-", "not run", "-"])
            refusals.append(f"{row['strategy']}: {row['refused']}")
            continue
        heads = [headline(scores) for scores in row["scores"].values()]
        same = row["loyalty"]["agreement"]
        lines.append(
            [
                name,
                str(row["keep"]),
                f"{row['tokens']['average']:.0f}",
                f"{100 * row['flops']['share']:.0f} %",
                " / ".join(map(_interval, heads)),
                "-" if same is None else f"{100 * same['value']:.1f}",
            ]
        )
    names = " / ".join(dict.fromkeys(task for row in outcome.rows for task in row.get("scores", {})))
    print_table(["strategy", "keep", "tokens", "FLOPs", names or "score", "agreement"], lines)
    for refusal in dict.fromkeys(refusals):
        say(f"\nnot run: {refusal}")
    say(f"\n{len(outcome.new)} new rows, {len(outcome.old)} old ones, in {file}; a picture: seeless plot {file}")


def _interval(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return f"{score['value']:.4g}"
    return f"{100 * score['value']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _items(text: str) -> list[str]:
    items = list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))
    if not items:
        raise typer.BadParameter(f"{text!r} names nothing")
    return items


def _budget(text: str) -> float | int:
    try:
        return parse_value(text, float | int)
    except ValueError:
        raise typer.BadParameter(f"--keep {text}: give shares (0.25) or numbers of tokens (64)") from None


def _whole(flag: str, text: str) -> int:
    if not text.isdigit():
        raise typer.BadParameter(f"{flag} {text}: give whole numbers")
    return int(text)
