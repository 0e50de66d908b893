"""Answers of a model and of several methods on it, side by side, as columns of results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import seeless as sl
from seeless import models
from seeless.asking.answers import answer_reduced, generate_answer
from seeless.asking.inputs import build_inputs, check_video_processor, unknown_words
from seeless.asking.results import COLUMNS, Result, cells, result_dict, what_is_not_faster
from seeless.asking.tasks import Task
from seeless.asking.timing import Times, measure
from seeless.errors import InputError, SeelessError, one_line
from seeless.eval.nominal import By, all_strategies, at_budget
from seeless.named.checkpoints import LoadedModel
from seeless.named.errors import naming_strategies

if TYPE_CHECKING:
    from PIL.Image import Image

UNTOUCHED = "none"
MOST_METHODS = 4
LONGEST_ANSWER = 32  # tokens
REPEATS = 3  # timed runs of each, after one that is not counted
LONGEST_SIDE = {True: 480, False: 240}  # pixels of what is shown; by: one picture alone?


@dataclass(frozen=True)
class Shown:
    """What one stage of a method did.

    Args:
        title: where, and how many tokens of how many stay.
        kept: the pictures, what was dropped darkened.
        scores: the pictures, coloured by the scores; empty where there are none.
    """

    title: str
    kept: "list[Image]"
    scores: "list[Image]"


@dataclass(frozen=True)
class Column:
    """One method's results; the untouched model's has neither stages nor a report.

    Args:
        name: of the method.
        settings: the method with its fields.
        answer: the model's; right: whether it is the one that is known to be.
        numbers: text by label, the same labels in every column.
        layers: visual tokens that each decoder layer saw.
        stages: in the order of the flow.
        report: as text.
        trouble: why there is nothing else; "" if there is.
    """

    name: str
    settings: str = ""
    answer: str = ""
    right: bool | None = None
    numbers: dict[str, str] = field(default_factory=dict)
    layers: list[int] = field(default_factory=list)
    stages: list[Shown] = field(default_factory=list)
    report: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Answers:
    """All columns, the untouched model's first; `notes` are sentences about the question and the pictures."""

    columns: list[Column]
    notes: list[str]


def methods_with_budget() -> list[str]:
    """The strategies whose budget is one number, which a slider can set."""
    return [name for name in all_strategies() if _takes_budget(name)]


def _takes_budget(name: str) -> bool:
    try:
        at_budget(name, 0.5)
    except sl.BudgetError:
        return False
    return True


def answer_side_by_side(
    loaded: LoadedModel, task: Task, methods: Sequence[str], budget: float, by: By, repeats: int = REPEATS
) -> Iterator[Answers]:
    """The answers, first without times, then with them.

    A method that cannot be had says so in its own column, and the others go on.

    Args:
        budget, by: as `seeless.eval.nominal.at_budget` takes them.
        repeats: timed runs; 0: no times, and the answers come once.

    Raises:
        InputError: the question cannot be put to the model, or there are no methods or too many.
        MissingExtra: the model's own videos need a package.
    """
    methods = list(dict.fromkeys(methods))
    if not 1 <= len(methods) <= MOST_METHODS:
        raise InputError(f"{len(methods)} methods are chosen; choose 1 to {MOST_METHODS}")
    whole = bool(task.videos) and models.takes_videos(loaded.model)
    if whole:
        check_video_processor(loaded.model)
    inputs = build_inputs(loaded, task.images, task.sources, task.question, task.videos)
    pictures = [] if whole else _small(task)
    results: list[Result] = []
    reports: list[sl.Report] = []
    stages: dict[str, list[Shown]] = {}
    troubles: dict[str, str] = {}
    for name in methods:
        try:
            with naming_strategies():
                result, report = _answer(loaded, inputs, name, budget, by)
                stages[name] = [_shown(report, number, pictures) for number in range(len(report.stages))]
            results.append(result)
            reports.append(report)
        except SeelessError as error:
            troubles[name] = one_line(error)
    first = reports[0] if reports else answer_reduced(loaded, inputs, sl.Uniform(keep=1.0), 1)[1]
    results.insert(0, Result(UNTOUCHED, None, generate_answer(loaded, inputs, LONGEST_ANSWER), None, None))
    stages[UNTOUCHED] = [Shown(f"all {first.n_before[0]} visual tokens", pictures, [])]
    notes = _notes(loaded, task, inputs, whole)

    def told(times: Sequence[Times | None]) -> Answers:
        timed = [replace(result, times=time) for result, time in zip(results, times, strict=True)]
        rows = [result_dict(result, first, task.right_answer) for result in timed]
        found = {each.name: _column(each, row, first, stages[each.name]) for each, row in zip(timed, rows, strict=True)}
        found |= {name: Column(name, trouble=trouble) for name, trouble in troubles.items()}
        slow = what_is_not_faster(rows) if None not in times else ""
        return Answers([found[name] for name in (UNTOUCHED, *methods)], [*notes, *filter(None, [slow])])

    yield told([None] * len(results))
    if repeats:
        yield told(measure(loaded.model, inputs, [result.strategy for result in results], repeats))


def _answer(loaded: LoadedModel, inputs: Any, name: str, budget: float, by: By) -> tuple[Result, sl.Report]:
    strategy = at_budget(name, budget, by=by)
    models.check_strategy(loaded.model, strategy)
    answer, report = answer_reduced(loaded, inputs, strategy, LONGEST_ANSWER)
    return Result(name, strategy, answer, report, None), report


def _notes(loaded: LoadedModel, task: Task, inputs: Any, whole: bool) -> list[str]:
    notes = []
    if told := unknown_words(loaded, inputs):
        notes.append(f"{told} of the question")
    if whole:
        notes.append("the model takes the video whole; of each frame something else is kept, so no picture shows it")
    elif task.videos:
        frames = len(task.videos[0].frames)
        notes.append(f"the model takes no videos of their own; it sees {frames} frames of it as pictures in a row")
    return notes


def _small(task: Task) -> "list[Image]":
    """The pictures and frames as they are shown: not larger than there is room for."""
    found = [*task.images, *(frame for video in task.videos for frame in video.frames)]
    longest = LONGEST_SIDE[len(found) == 1]
    small = []
    for image in found:
        factor = longest / max(image.size)
        width, height = (max(1, round(side * factor)) for side in image.size)
        small.append(image.resize((width, height)))
    return small


def _column(result: Result, row: dict[str, Any], first: sl.Report, stages: list[Shown]) -> Column:
    numbers = dict(list(zip(COLUMNS, cells(row), strict=True))[2:])  # behind the name and the answer
    if result.report is None:
        layers = [first.n_before[0]] * len(first.visual)
        return Column(result.name, "the untouched model", result.answer, row["right"], numbers, layers, stages)
    layers = [rows[0] for rows in result.report.visual]
    told = str(result.report)
    return Column(result.name, result.headline, result.answer, row["right"], numbers, layers, stages, told)


def _shown(report: sl.Report, number: int, pictures: "list[Image]") -> Shown:
    stage = report.stages[number]
    where = "at the entry" if stage.layer == 0 else f"before layer {stage.layer}"
    title = f"{where}: {stage.n_before[0]} → {stage.n_after[0]} tokens"
    numbered = list(enumerate(pictures))
    kept = [report.overlay(image, picture=i, stage=number) for i, image in numbered]
    if stage.scores is None:
        return Shown(title, kept, [])
    return Shown(title, kept, [report.heat_map(image, picture=i, stage=number) for i, image in numbered])
