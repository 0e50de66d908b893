"""One run of lmms-eval in this process, on a model that is loaded already."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import seeless as sl
from seeless.errors import with_kind
from seeless.eval.errors import FailedEvaluation
from seeless.eval.intervals import score
from seeless.eval.loyalty import Answers
from seeless.eval.outcome import metric_of
from seeless.eval.tasknames import enough, lmms_eval_folder, task_names
from seeless.eval.tasks import tasks_path
from seeless.strategy import Recipe

TAIL = 2000


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What one run gave.

    Args:
        answers: what the model said.
        scores: by task and metric, mean, number of questions and interval; without an interval where a metric is no
            mean of numbers.
        measures: one `Measure` of seeless.integrations.lmms_eval per request.
        seconds: spent on answering, of all requests together.
    """

    answers: Answers
    scores: dict[str, dict[str, dict[str, Any]]]
    measures: list[Any]
    seconds: float


def evaluate(
    model: nn.Module,
    processor: Any,
    strategy: sl.Strategy | Recipe | None,
    tasks: Sequence[str],
    *,
    batch_size: int = 1,
    limit: float | None = None,
    seed: int = 0,
    include_path: Sequence[Path] = (),
    answered: Callable[[int, int], None] = lambda done, known: None,
) -> Evaluated:
    """Ask a model the questions of some tasks.

    Args:
        strategy: what is put on the model while it answers; None for nothing.
        tasks: as lmms-eval knows them; those shipped with seeless are among them.
        limit: questions per task, below 1 their share; None: all.
        seed: of all generators of random numbers.
        include_path: folders with more tasks.
        answered: called with how many questions are answered, and how many are known of; lmms-eval hands over those
            that want a text and those that want a choice one after the other.

    Raises:
        BudgetError, UnsupportedModel, InputError: the strategy cannot work on this model or these questions.
        BadDocuments: records that cannot be read, each named.
        MissingEvaluator: lmms-eval is not installed.
        FailedEvaluation: anything else that lmms-eval stumbles over.
    """
    lmms_eval_folder()
    with _quiet() as heard:
        try:
            found, lm = _run(model, processor, strategy, tasks, batch_size, limit, seed, include_path, answered)
        except sl.SeelessError:
            raise
        except (Exception, SystemExit) as raised:  # a plug-in may do anything
            error = _cause(raised)
            said = heard.getvalue()[-TAIL:].strip()
            raise FailedEvaluation(
                f"lmms-eval failed on {', '.join(tasks)}: {with_kind(error)}"
                + (f"; it said last: {said}" if said else "")
            ) from error
    words, scores = {}, {}
    for task in sorted(found["samples"], key=lambda task: [*tasks, task].index(task)):
        samples = found["samples"][task]
        own = {sample["doc_id"]: sample for sample in reversed(samples)}  # of several filters the first
        words.update({f"{task}/{number}": _answer(own[number]["filtered_resps"]) for number in sorted(own)})
        scores[task] = _scores(found["results"][task], list(own.values()))
    first = {f"{m.task}/{m.doc_id}": m.first_token for m in reversed(lm.measures) if m.first_token is not None}
    return Evaluated(Answers(words, first), scores, list(lm.measures), found["throughput"]["total_elapsed_time"])


def _run(
    model: nn.Module,
    processor: Any,
    strategy: sl.Strategy | Recipe | None,
    tasks: Sequence[str],
    batch_size: int,
    limit: float | None,
    seed: int,
    include_path: Sequence[Path],
    answered: Callable[[int, int], None],
) -> tuple[dict[str, Any], Any]:
    """What lmms-eval returned, and the model in its clothes, with what it measured."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from seeless.integrations.lmms_eval.model import SeelessLM

    folders = [tasks_path(), *include_path]
    theirs = not enough(tasks, task_names(*folders))  # lmms-eval takes a while to read its own
    manager = TaskManager("ERROR", list(map(str, folders)), include_defaults=theirs, model_name="seeless")
    lm = SeelessLM.around(model, processor, strategy, batch_size=batch_size, keep_first_token=True, answered=answered)
    found = simple_evaluate(
        lm,
        tasks=list(tasks),
        task_manager=manager,
        batch_size=batch_size,
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
    )
    return found, lm


def _cause(error: BaseException) -> BaseException:
    """What lmms-eval tried again and again in vain, instead of the fact that it did."""
    while type(error).__name__ == "RetryError" and error.__cause__ is not None:
        error = error.__cause__
    return error


def _answer(responses: list[Any]) -> str:
    """What was said to one record: the text, or the number of the option with the smallest loss."""
    if all(isinstance(each, tuple | list) and len(each) == 2 for each in responses):
        losses = [loss for loss, _ in responses]
        return str(losses.index(min(losses)))
    return "\n".join(str(each).strip() for each in responses)


def _scores(result: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By metric; records a metric is not about do not count."""
    scores: dict[str, dict[str, Any]] = {}
    for key, value in result.items():
        name = metric_of(key)
        if name is None or name in scores:
            continue
        values = [sample[name] for sample in samples if name in sample]
        if values and all(isinstance(each, int | float) for each in values):
            scores[name] = score(values).to_dict()
        elif values:  # the task's own sum of what it noted, a number without an interval
            scores[name] = {"value": value, "n": len(values), "low": None, "high": None}
    return scores


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Catch what lmms-eval, datasets and their progress bars print."""
    from loguru import logger  # it remembers the stderr of its import

    heard = io.StringIO()
    logger.disable("lmms_eval")
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            yield heard
    finally:
        logger.enable("lmms_eval")
