"""`seeless sweep`: many strategies at many budgets on one model."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeless.cli.console import notice, print_table, say
from seeless.cli.flags import read_flags, refuse_strangers
from seeless.cli.options import Plugins, asked_budgets, items, questions
from seeless.errors import shortened
from seeless.eval.errors import FailedEvaluation, InvalidRequest
from seeless.eval.rows import FAILED, REFUSED, check_rows, has_scores, headline
from seeless.named.plugins import load_plugins
from seeless.outputs import check_file

if TYPE_CHECKING:
    from seeless.eval.sweep import Asked, Outcome, Planned
    from seeless.named.checkpoints import LoadedModel

ALL = "all"
BUDGETS = "0.5,0.25,0.11,0.05"
SEEDS = 2**32  # NumPy takes no larger ones


def sweep(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="tiny, reader, a hub id, a folder, or a short name of `seeless eval`.")
    ] = "tiny",
    strategies: Annotated[
        str, typer.Option(metavar="A,B,C", help="See `seeless list`, guests too; all: every strategy.")
    ] = ALL,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...", help=f"Nominal budgets: shares (0.25) or numbers of tokens (64). [default: {BUDGETS}]"
        ),
    ] = None,
    average: Annotated[
        str | None, typer.Option(metavar="R,R,...", help="In place of --keep: what a decoder layer sees on average.")
    ] = None,
    tasks: Annotated[
        str, typer.Option(metavar="A,B", help="Of lmms-eval, or the shipped scenes, scenes_choice and drawings.")
    ] = "scenes",
    include_path: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="With more tasks; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where rows go; results/sweep-MODEL.jsonl unless told.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a file that has rows.")] = False,
    plugin: Plugins = None,
    limit: Annotated[
        str | None, typer.Option(metavar="N_OR_SHARE", help="Questions per task, below 1 their share.")
    ] = None,
    seed: Annotated[str, typer.Option(metavar="N,N,...", help="For strategies that draw; one run for each.")] = "0",
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per forward.")] = 1,
) -> None:
    """Ask the questions of some tasks with all visual tokens, and with fewer by every strategy at every budget.

    One line per run goes to the output file: what ran, scores with 95 % intervals, agreement with the untouched model's
    own answers, visual tokens per layer, FLOPs, times. What cannot run, or fails, has a line that says why, and the
    others go on; --resume tries again what failed. Other fields of strategies are flags: --layer 3, --random.layer 2.
    """
    from seeless.eval.nominal import all_strategies
    from seeless.eval.sweep import Asked, plan
    from seeless.eval.targets import target
    from seeless.eval.tasknames import check_cache, check_folders, check_tasks, enough, lmms_eval_folder, task_names
    from seeless.eval.tasks import full_names, tasks_path
    from seeless.named.checkpoints import load_embedded, load_model

    load_plugins(plugin or [])
    names = all_strategies() if strategies == ALL else [name for name in items(strategies) if name != "none"]
    flags = read_flags(context.args, options=("keep", "average"))
    refuse_strangers(flags, names)
    by, budgets = asked_budgets(keep, average, BUDGETS)
    seeds = [_seed(text) for text in items(seed)]
    runs = plan(names, budgets, seeds, flags, by)
    refused = [run for run in runs if run.refused]
    if refused and len(refused) == len(runs) - 1:  # all but the untouched model
        raise InvalidRequest(f"none of these runs is possible; {refused[0].label}: {refused[0].refused}")
    chosen = target(model)
    asked = Asked(
        model=model if chosen.embedded or os.path.exists(model) else chosen.pretrained,
        tasks=full_names(items(tasks)),
        limit=questions(limit),
        batch_size=batch_size,
        include_path=tuple(include_path or []),
        command=shlex.join(["seeless", *sys.argv[1:]]),
    )
    file = output or Path("results") / f"sweep-{re.sub(r'[^A-Za-z0-9.]+', '-', asked.model).strip('-.')}.jsonl"
    check_folders(asked.include_path)
    theirs, known = lmms_eval_folder() / "tasks", task_names(tasks_path(), *asked.include_path)
    if not enough(asked.tasks, known):  # reading lmms-eval's takes a second
        known = task_names(tasks_path(), *asked.include_path, theirs)
    check_tasks(asked.tasks, known)
    check_file(file)
    check_rows(file, resume)
    check_cache()
    loaded = load_embedded(chosen.pretrained) if chosen.embedded else load_model(chosen.pretrained)
    try:
        outcome = _with_progress(loaded, runs, asked, file, resume)
    except KeyboardInterrupt:
        notice(f"stopped; what is done is in {file}, and the same command with --resume goes on from there")
        raise SystemExit(130) from None
    _print(outcome, file)
    if outcome.failed:
        raise FailedEvaluation(
            f"{len(outcome.failed)} of {len(outcome.rows)} runs failed, see above; --resume tries them again"
        )


def _with_progress(loaded: "LoadedModel", runs: "list[Planned]", asked: "Asked", file: Path, resume: bool) -> "Outcome":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from seeless.eval.sweep import sweep

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("questions,"), TimeRemainingColumn())
    console = Console(file=sys.stderr, highlight=False)
    with Progress(*columns, TextColumn("left: {task.description}"), console=console, transient=True) as progress:
        bar = progress.add_task("")
        questions = Questions()

        def tell(text: str) -> None:
            progress.console.print(text, soft_wrap=True, markup=False)

        def starts(run: "Planned", number: int, total: int) -> None:
            questions.start(number, total)
            progress.update(bar, description=run.label, completed=questions.done, total=questions.total)

        def answered(done: int, known: int) -> None:
            questions.answer(done, known)
            progress.update(bar, completed=questions.done, total=questions.total)

        return sweep(
            loaded.model,
            loaded.processor,
            runs,
            asked,
            file,
            resume=resume,
            notice=tell,
            starts=starts,
            ends=lambda run, row: tell(f"{run.label}: {_in_short(row)}"),
            answered=answered,
        )


class Questions:
    """How many questions a sweep has asked, and how many there will be: those of the run that goes on, for every run.

    `total` is None before the first run has said how many it has.
    """

    def __init__(self) -> None:
        self._before, self._run, self._known, self._runs_left = 0, 0, 0, 0

    def start(self, number: int, total: int) -> None:
        """A run begins, of so many."""
        self._before, self._run, self._runs_left = self._before + self._run, 0, total - number

    def answer(self, done: int, known: int) -> None:
        """So many of the run's questions are answered, of so many that are known of."""
        self._run, self._known = done, max(known, self._known)

    @property
    def done(self) -> int:
        """Questions answered."""
        return self._before + self._run

    @property
    def total(self) -> int | None:
        """Questions in all."""
        return self._before + self._known * self._runs_left if self._known else None


def _in_short(row: dict[str, Any]) -> str:
    if not has_scores(row):
        return row[REFUSED] if REFUSED in row else f"failed: {row[FAILED]}"
    scores = (f"{100 * value['value']:.1f} %" for value in (headline(found) for found in row["scores"].values()))
    return f"{', '.join(scores)}, {row['tokens']['average']:.0f} visual tokens per layer"


def _print(outcome: "Outcome", file: Path) -> None:
    """Rows of the sweep, new and old, as a table on stdout."""
    lines, reasons = [], []
    for row in outcome.rows:
        name = row["strategy"] if row["seed"] is None else f"{row['strategy']}, seed {row['seed']}"
        if not has_scores(row):
            refused = REFUSED in row
            lines.append([name, str(row["keep"]), "-", "-", "not run" if refused else "failed", "-"])
            reason = row[REFUSED] if refused else row[FAILED]
            reasons.append(f"{'not run' if refused else 'failed'}: {row['strategy']}: {reason}")
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
    for reason in dict.fromkeys(reasons):
        say(f"\n{reason}")
    _print_published(outcome)
    say(f"\n{len(outcome.new)} new rows, {len(outcome.old)} old ones, in {file}; a picture: seeless plot {file}")


def _print_published(outcome: "Outcome") -> None:
    """What others have published for these models, methods and budgets."""
    from seeless.cli.beside import print_compared
    from seeless.eval.beside import beside_rows
    from seeless.eval.published import NEEDED, can_read

    if not can_read():
        notice(NEEDED)
        return
    found = beside_rows(outcome.rows)
    for whole in (True, False):
        rows = [([row["strategy"], str(row["keep"])], each) for row, each in found if (row["limit"] is None) == whole]
        print_compared(rows, ["strategy", "keep"], whole)


def _interval(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return f"{score['value']:.4g}"
    return f"{100 * score['value']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:20]) >= SEEDS:
        raise typer.BadParameter(f"--seed {shortened(text)}: give whole numbers below {SEEDS}")
    return int(text)
