"""Sweeps: many strategies at many budgets on one model, a row of a result file each."""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

import seeless as sl
from seeless import models
from seeless.errors import one_line, with_kind
from seeless.eval.budgets import check_count, show_one_picture
from seeless.eval.errors import FailedEvaluation
from seeless.eval.inprocess import Evaluated, evaluate
from seeless.eval.loyalty import Answers, agreement, divergence, load_answers, save_answers
from seeless.eval.nominal import By, at_budget, takes_seed
from seeless.eval.rows import FAILED, REFUSED, Row, check_rows, key_of, latest, named, read_rows
from seeless.jsonl import append_lines
from seeless.named.knobs import Values
from seeless.named.strategies import choose
from seeless.outputs import claimed
from seeless.provenance import provenance
from seeless.strategy import Recipe
from seeless.vtr import VTRConfig
from seeless.weights import fingerprint

REFUSALS = (sl.BudgetError, sl.UnsupportedModel, sl.InputError)
NONE = "none"


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Args:
        name: of the strategy, as users name it; "none" for the untouched model.
        keep: the nominal budget.
        seed: None where nothing is drawn.
        strategy: None for the untouched model, and where there is a refusal.
        refused: why it cannot run; "" if it can.
    """

    name: str
    keep: float | int
    seed: int | None = None
    strategy: sl.Strategy | Recipe | None = None
    refused: str = ""

    @property
    def fields(self) -> dict[str, Any] | None:
        """The strategy as plain JSON; None where there is none."""
        return self.strategy.to_dict() if isinstance(self.strategy, sl.Strategy | VTRConfig) else None

    @property
    def label(self) -> str:
        """For people."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return self.name if self.name == NONE else f"{self.name} at {self.keep}{seed}"


@dataclass(frozen=True)
class Asked:
    """What all runs of a sweep have in common.

    Args:
        model: its name for people and files.
        tasks: as lmms-eval knows them.
        limit: questions per task, below 1 their share; None: all.
        batch_size: questions per forward.
        include_path: folders with more tasks.
        command: that started the sweep.
    """

    model: str
    tasks: list[str]
    limit: float | None = None
    batch_size: int = 1
    include_path: tuple[Path, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a sweep: rows that were there before, and new ones."""

    old: list[Row]
    new: list[Row]

    @property
    def rows(self) -> list[Row]:
        """All of them, of a run that was made again the last one."""
        return latest([*self.old, *self.new])

    @property
    def failed(self) -> list[Row]:
        """The rows of runs that ended in an error."""
        return [row for row in self.rows if FAILED in row]


def plan(
    names: Sequence[str],
    budgets: Sequence[float | int],
    seeds: Sequence[int] = (0,),
    values: Values | None = None,
    by: By = "keep",
) -> list[Planned]:
    """The runs of a sweep: the untouched model, then every strategy at every budget; with every seed if it has one.

    Raises:
        UnknownStrategy: no such name.

    >>> [run.label for run in plan(["random", "fastv"], [0.5], seeds=[0, 1])]
    ['none', 'random at 0.5, seed 0', 'random at 0.5, seed 1', 'fastv at 0.5']
    """
    runs = [Planned(NONE, 1.0)]
    for name in names:
        choose(name)
        for keep in budgets:
            for seed in seeds if takes_seed(name) else [None]:
                try:
                    runs.append(Planned(name, keep, seed, at_budget(name, keep, seed or 0, values, by)))
                except REFUSALS as error:
                    runs.append(Planned(name, keep, seed, refused=one_line(error)))
    return runs


def sweep(
    model: nn.Module,
    processor: Any,
    runs: Iterable[Planned],
    asked: Asked,
    output: Path,
    *,
    resume: bool = False,
    notice: Callable[[str], None] = warnings.warn,
    starts: Callable[[Planned, int, int], None] = lambda run, number, total: None,
    ends: Callable[[Planned, Row], None] = lambda run, row: None,
    answered: Callable[[int, int], None] = lambda done, known: None,
) -> Outcome:
    """Make the runs whose rows are not in `output` yet, and add a row for each as soon as it is done.

    The untouched model's answers are kept beside the file (`reference_of`), so that a sweep that goes on need not ask
    it again; where they belong to something else, it is asked again. A run that ends in an error (of a plug-in, say)
    has a row that says why, and the sweep goes on; a sweep that goes on later tries it again.

    Args:
        resume: go on with a file that has rows.
        notice: told what is worth knowing, lines of the file that are no rows for one.
        starts: called before each run, with its number, from 0, and how many there are.
        ends: called after it, with its row.
        answered: called while a run goes on, with how many questions it has answered, and of how many it knows.

    Raises:
        InvalidRequest: the file has rows and `resume` is not set.
        UnwritableFile: the file cannot be written to, or no longer. FileInUse: another sweep adds to it.
        BadDocuments: records of a task that cannot be read, each named.
        FailedEvaluation: lmms-eval failed on the untouched model.
    """
    with claimed(output):
        check_rows(output, resume)
        return _sweep(model, processor, runs, asked, output, notice, starts, ends, answered)


def _sweep(
    model: nn.Module,
    processor: Any,
    runs: Iterable[Planned],
    asked: Asked,
    output: Path,
    notice: Callable[[str], None],
    starts: Callable[[Planned, int, int], None],
    ends: Callable[[Planned, Row], None],
    answered: Callable[[int, int], None],
) -> Outcome:
    rows, broken = read_rows(output)
    for line in named(broken):
        notice(line)
    session = _Session(model, processor, asked, answered)
    if others := [row for row in rows if row.get("commit") != session.about["commit"]]:
        notice(f"{len(others)} of {len(rows)} rows were made at another commit and are kept")
    done = {key_of(row) for row in rows if FAILED not in row}
    todo = [run for run in runs if key_of(session.identity(run)) not in done]
    reference: Answers | None = None
    if any(not run.refused for run in todo) and all(run.name != NONE for run in todo):
        kept = load_answers(reference_of(output), session.reference_identity())
        if isinstance(kept, Answers):
            reference = kept
        else:
            notice(f"the untouched model is asked again: {kept}")
            todo.insert(0, Planned(NONE, 1.0))
    new: list[Row] = []
    for number, run in enumerate(todo):
        starts(run, number, len(todo))
        row, answers = session.run(run, reference)
        if run.name == NONE:
            assert answers is not None  # nothing refuses to leave a model as it is
            reference = answers
            save_answers(answers, reference_of(output), session.reference_identity())
        if key_of(row) not in done:
            append_lines(output, row)
            new.append(row)
        ends(run, row)
    return Outcome(rows, new)


def reference_of(output: Path) -> Path:
    """Where the untouched model's answers of a result file are kept."""
    return output.with_suffix(".reference.safetensors")


def _code() -> str:
    """What the source files of this package are known by, committed or not."""
    digest = hashlib.sha256()
    for file in sorted(Path(sl.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class _Session:
    """A model at hand, and the times it took while untouched."""

    def __init__(self, model: nn.Module, processor: Any, asked: Asked, answered: Callable[[int, int], None]) -> None:
        self.model, self.processor, self.asked, self.answered = model, processor, asked, answered
        self.about, self.weights = provenance(), fingerprint(model)
        self.untouched: dict[str, float] | None = None

    def identity(self, run: Planned) -> Row:
        """What the row of a run is known by."""
        return {
            "model": self.asked.model,
            "weights": self.weights,
            "strategy": run.name,
            "fields": run.fields,
            "keep": run.keep,
            "seed": run.seed,
            "tasks": self.asked.tasks,
            "limit": self.asked.limit,
        }

    def reference_identity(self) -> dict[str, Any]:
        """What the untouched model's answers are known by."""
        own = {name: self.identity(Planned(NONE, 1.0))[name] for name in ("model", "weights", "tasks", "limit")}
        return {**own, "code": _code(), "versions": self.about["versions"]}

    def run(self, run: Planned, reference: Answers | None) -> tuple[Row, Answers | None]:
        """The row of a run, and its answers; none where it is refused or fails."""
        row = self.identity(run)
        tail = {**self.about, "command": self.asked.command, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        refused, done = run.refused, None
        if not refused:
            try:
                done = self._evaluate(run)
            except Exception as error:
                if run.name == NONE:  # then none of the others can run, either
                    raise
                if isinstance(error, sl.StrategyError) or not isinstance(error, REFUSALS):
                    return {**row, FAILED: _reason(error), **tail}, None
                refused = one_line(error)
        if done is not None and run.keep != 1 and not any(_fewer(measure) for measure in done.measures):
            refused = f"{run.name} dropped nothing: every question was answered from all its visual tokens"
        if refused or done is None:
            return {**row, REFUSED: refused, **tail}, None
        found = done.answers
        row |= {"scores": done.scores, "loyalty": _loyalty(found, found if reference is None else reference)}
        row |= {**_costs(done.measures), "seconds": self._times(run, done), "peak_bytes": self._peak()}
        return {**row, "batch_size": self.asked.batch_size, **tail}, found

    def _evaluate(self, run: Planned) -> Evaluated:
        if run.strategy is not None:
            models.check_strategy(self.model, run.strategy)
            check_count(self.model, run.strategy, show_one_picture(self.asked.tasks))
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return evaluate(
            self.model,
            self.processor,
            run.strategy,
            self.asked.tasks,
            batch_size=self.asked.batch_size,
            limit=self.asked.limit,
            seed=run.seed or 0,
            include_path=self.asked.include_path,
            answered=self.answered,
        )

    def _times(self, run: Planned, done: Evaluated) -> dict[str, float | None]:
        """Median prefill and mean answer per request, and both as shares of the untouched model's of this session."""
        times = {
            "prefill": median(measure.prefill_seconds for measure in done.measures),
            "answer": done.seconds / len(done.measures),
        }
        if run.name == NONE:
            self.untouched = times
        shares = {f"{name}_share": self.untouched and times[name] / self.untouched[name] for name in times}
        return {**times, **shares}

    @staticmethod
    def _peak() -> int | None:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _reason(error: Exception) -> str:
    """Why a run failed: the error itself, without what lmms-eval printed before it."""
    cause = error.__cause__ if isinstance(error, FailedEvaluation) and error.__cause__ is not None else error
    own = isinstance(cause, sl.SeelessError)
    return one_line(cause) if own else with_kind(cause)


def _fewer(measure: Any) -> bool:
    return measure.visual_average < measure.visual_before or measure.flops < measure.flops_untouched


def _loyalty(answers: Answers, reference: Answers) -> dict[str, Any]:
    same, apart = agreement(answers, reference), divergence(answers, reference)
    return {
        "agreement": None if same is None else same.to_dict(),
        "kl": None if apart is None else apart[0],
        "kl_n": 0 if apart is None else apart[1],
    }


def _costs(measures: Sequence[Any]) -> dict[str, Any]:
    """Means over requests."""

    def mean(name: str) -> float:
        return fmean(getattr(measure, name) for measure in measures)

    untouched, used = mean("flops_untouched"), mean("flops")
    return {
        "tokens": {"before": mean("visual_before"), "average": mean("visual_average"), "input": mean("input_tokens")},
        "flops": {"untouched": untouched, "used": used, "share": used / untouched},
    }
