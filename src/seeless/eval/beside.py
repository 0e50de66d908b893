"""Measured values beside what others have published for the same model, benchmark and budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seeless.eval.published import Figure, figures
from seeless.eval.reductions import BASELINE
from seeless.eval.rows import Row, has_scores
from seeless.named.strategies import GUEST

UNTOUCHED = "none"
THRESHOLDS = ("threshold", "score_threshold")  # then scores say how many tokens stay
BUDGETS = ("keep", "keep_tokens", "retain_ratio", "keep_ratio")  # the first that is set counts


@dataclass(frozen=True)
class Comparison:
    """A measured value, in the unit of what is published, and all figures for it, suspect ones too."""

    task: str
    metric: str
    measured: float
    figures: tuple[Figure, ...]

    @property
    def trusted(self) -> list[float]:
        """The values that nothing speaks against, each once, in their order."""
        return sorted({figure.value for figure in self.figures if figure.trusted})

    @property
    def apart(self) -> float | None:
        """How far the measured value is above (or, negative, below) the trusted ones; 0 among them; None without any.

        >>> own = [each for each in matching("fastv", {"keep": 144}, "llava-hf/llava-1.5-7b-hf") if each.task == "gqa"]
        >>> [compare(own, [("gqa", "exact_match", value)])[0].apart for value in (0.5658, 0.57, 0.56)]
        [0.0, 0.42, -0.58]
        """
        if not self.trusted:
            return None
        over, under = self.measured - self.trusted[-1], self.measured - self.trusted[0]
        return round(max(over, 0.0) + min(under, 0.0), 4)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "task": self.task,
            "metric": self.metric,
            "measured": self.measured,
            "apart": self.apart,
            "figures": [figure.to_dict() for figure in self.figures],
        }


def matching(strategy: str, fields: dict[str, Any] | None, checkpoint: str) -> list[Figure]:
    """The figures of a method at a budget on a model, of all tasks.

    Papers name a budget by what their method keeps, so it is the nominal one that has to match: a number or share of
    tokens, or of stages with a budget each (PyramidDrop) their `average` over the layers.

    Args:
        strategy: its name, a guest's too; "none" or "baseline" for the untouched model.
        fields: its fields as plain JSON; None for the untouched model.
        checkpoint: hub id. Folders match nothing, since nobody knows what is in them.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    name = strategy.removeprefix(GUEST)
    budget = 1.0 if fields is None else nominal_budget(fields)
    if budget is None:
        return []
    scope = None if fields is None else fields.get("scope")
    asked = UNTOUCHED if name == BASELINE else name
    own = [each for each in figures() if each.checkpoint == checkpoint and each.strategy == asked and each.task]
    return [each for each in own if each.has_budget(budget, scope)]


def nominal_budget(fields: dict[str, Any]) -> float | int | None:
    """The one budget among a strategy's fields; None where there is none, one per stage, or a threshold decides.

    An `average` over the layers is the budget of methods with one per stage, and of those that act at the entry alone;
    what a method that cuts once, later, calls its budget is another number.

    >>> [nominal_budget(fields) for fields in ({"keep": 0.25}, {"keep": [0.5, 0.25]}, {"keep": 1.0, "average": 64})]
    [0.25, None, 64]
    >>> [nominal_budget({"keep": keep, "average": 192, "layer": None}) for keep in ([0.5, 0.25], 1.0)]
    [192, None]
    """
    if any(fields.get(name) is not None for name in THRESHOLDS):
        return None
    if fields.get("average") is not None:
        return fields["average"] if isinstance(fields["keep"], list) or "layer" not in fields else None
    given = [fields[name] for name in BUDGETS if fields.get(name) is not None]
    return given[0] if given and isinstance(given[0], int | float) else None


def compare(found: Sequence[Figure], measured: Iterable[tuple[str, str, float | None]]) -> list[Comparison]:
    """The measured values for which there are figures.

    Args:
        measured: task, metric and value, as lmms-eval has them.
    """
    compared = []
    for task, metric, value in measured:
        own = [figure for figure in found if (figure.task, figure.task_metric) == (task, metric)]
        for scale in dict.fromkeys(figure.scale for figure in own if value is not None):
            assert value is not None and scale is not None  # a figure with a task has a scale
            alike = tuple(figure for figure in own if figure.scale == scale)
            compared.append(Comparison(task, metric, round(scale * value, 4), alike))
    return compared


def beside_rows(rows: Iterable[Row]) -> list[tuple[Row, Comparison]]:
    """The comparisons of all scores in rows of sweeps, each with its row.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    found = []
    for row in filter(has_scores, rows):
        fields = None if row["strategy"] == UNTOUCHED else row["fields"] or {}
        scores = [
            (task, metric, score["value"]) for task, own in row["scores"].items() for metric, score in own.items()
        ]
        found += [(row, each) for each in compare(matching(row["strategy"], fields, row["model"]), scores)]
    return found
