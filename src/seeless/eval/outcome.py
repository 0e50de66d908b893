"""What an evaluation left behind: its results found, checked against what was asked for, and put into rows.

lmms-eval prints errors and ends with exit code 0, so nothing but its files says whether it worked.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seeless.eval.errors import FailedEvaluation
from seeless.jsonl import NoJSON, decode

RESULTS, SAMPLES = "*_results.json", "_samples_{task}.jsonl"


@dataclass(frozen=True)
class Row:
    """One metric of one task.

    Args:
        value: None where there was nothing to judge.
        samples: questions answered that it is about, in a group those of its tasks.
        visual_tokens: mean number per decoder layer; None, like the next two, where nothing was measured (answers from
            a response cache; groups of tasks).
        flops_share: of the prefill, of what the untouched model needs.
        prefill_seconds: mean time of the prefill, tower included.
    """

    task: str
    metric: str
    value: float | None
    samples: int
    visual_tokens: float | None = None
    flops_share: float | None = None
    prefill_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def results_in(folder: Path) -> set[Path]:
    """The results files in a folder, whatever run they are of."""
    return set(folder.rglob(RESULTS)) if folder.is_dir() else set()


def read_results(folder: Path, before: set[Path], tasks: list[str], limit: float | None) -> tuple[Path, dict[str, Any]]:
    """The results file that was not there `before`, checked.

    Args:
        tasks: those whose results must be in it, tags and groups resolved.
        limit: questions asked for per task, below 1 their share; None: all there are.

    Raises:
        FailedEvaluation: there is none, a task is missing from it, or has fewer answers than questions.
    """
    new = sorted(results_in(folder) - before, key=lambda file: file.stat().st_mtime)
    if not new:
        raise FailedEvaluation(f"lmms-eval wrote no results to {folder}")
    file = new[-1]
    try:
        results = decode(file.read_bytes(), numbers_only=False)
    except (OSError, NoJSON) as error:
        raise FailedEvaluation(f"lmms-eval wrote results that cannot be read: {file}: {error}") from error
    if missing := [task for task in tasks if task not in results.get("results", {})]:
        raise FailedEvaluation(f"{file} has no results for {', '.join(missing)}")
    for task in tasks:
        there = results["n-samples"][task]["original"]
        wanted = there if limit is None else math.ceil(there * limit) if limit < 1 else min(int(limit), there)
        answered = len({sample["doc_id"] for sample in samples(file, task)})
        if answered < wanted:
            raise FailedEvaluation(f"{task} has answers to {answered} of {wanted} questions")
    return file, results


def samples(file: Path, task: str) -> list[dict[str, Any]]:
    """The questions of a task with their answers, from the file beside a results file.

    Raises:
        FailedEvaluation: it is missing or broken.
    """
    beside = file.with_name(file.name.removesuffix("_results.json") + SAMPLES.format(task=task))
    try:
        found = [decode(line, numbers_only=False) for line in beside.read_bytes().split(b"\n") if line.strip()]
    except (OSError, NoJSON) as error:
        raise FailedEvaluation(f"the answers to {task} cannot be read: {error}") from error
    return found


def rows(file: Path, results: dict[str, Any]) -> list[Row]:
    """All metrics of all tasks and groups, in the order of the results."""
    answered = {task: {sample["doc_id"]: sample for sample in samples(file, task)} for task in results["configs"]}
    found = []
    for task, numbers in results["results"].items():
        cost = _cost(results, task) if task in answered else {}
        for key, value in numbers.items():
            if (metric := metric_of(key)) is not None:
                found.append(Row(task, metric, _number(value), _judged(results, task, metric, answered), **cost))
    return found


def metric_of(key: str) -> str | None:
    """The metric behind a key of lmms-eval's results, "metric,filter"; None for names and standard errors.

    >>> metric_of("acc,none"), metric_of("acc_stderr,none"), metric_of("alias")
    ('acc', None, None)
    """
    metric, comma, _ = key.partition(",")
    return metric if comma and "_stderr" not in metric else None


def _judged(results: dict[str, Any], task: str, metric: str, answered: dict[str, dict]) -> int:
    """Questions that a metric is over: those with a value of it, or all where samples name no such metric."""
    if task in answered:
        own = answered[task].values()
        return sum(metric in sample for sample in own) or len(own)
    return sum(_judged(results, each, metric, answered) for each in results["group_subtasks"].get(task, []))


def _cost(results: dict[str, Any], task: str) -> dict[str, float | None]:
    """Means over the requests of a task, as the plug-in left them: under the task's name if there are several."""
    figures = results.get("throughput", {})
    prefix = f"avg_{task}/" if len(results["configs"]) > 1 else "avg_"
    return {name: figures.get(prefix + name) for name in ("visual_tokens", "flops_share", "prefill_seconds")}


def _number(value: Any) -> float | None:
    """Numbers as they are; "N/A", lists of findings and not-a-numbers are none."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None
