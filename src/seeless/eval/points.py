"""What a plot and a table of a sweep show: one point per strategy and budget, over all its seeds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from seeless.eval.rows import Row, has_scores, headline, latest

AGREEMENT = "agreement"
NONE = "none"


@dataclass(frozen=True)
class Point:
    """A strategy at a budget on a task.

    Args:
        keep: nominal.
        tokens: visual tokens per layer.
        flops: of the prefill, as a share of the untouched model's.
        metric: what `value` is.
        value, low, high: the metric and its interval; means over seeds; low and high None without an interval.
        agreement: with the untouched model's answers, over all tasks of the row.
        kl: of the first answer token, likewise.
    """

    model: str
    task: str
    strategy: str
    keep: float | int
    tokens: float
    flops: float
    metric: str
    value: float
    low: float | None
    high: float | None
    agreement: float | None
    kl: float | None


def points(rows: Iterable[Row], metric: str | None = None) -> list[Point]:
    """The points of some rows, in their order; of runs made twice the last counts. Runs without scores have no point,
    nor have those of which a number is infinite or none.

    Args:
        metric: by name; "agreement" for the one with the untouched model; unless told the first of each task.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in latest(rows):
        if has_scores(row):
            for task in row["scores"]:
                groups.setdefault((row["model"], task, row["strategy"], row["keep"]), []).append(row)
    found = []
    for (model, task, strategy, keep), own in groups.items():
        values = [_value(row, task, metric) for row in own]
        if any(value is None for value in values):
            continue
        point = Point(
            model=model,
            task=task,
            strategy=strategy,
            keep=keep,
            tokens=fmean(row["tokens"]["average"] for row in own),
            flops=fmean(row["flops"]["share"] for row in own),
            metric=metric or next(iter(own[0]["scores"][task])),
            value=fmean(value["value"] for value in values if value),
            low=_mean(value["low"] for value in values if value),
            high=_mean(value["high"] for value in values if value),
            agreement=_mean(same and same["value"] for same in (row["loyalty"]["agreement"] for row in own)),
            kl=_mean(row["loyalty"]["kl"] for row in own),
        )
        if all(map(math.isfinite, (point.tokens, point.flops, point.value))):
            found.append(point)
    return found


def metrics(rows: Iterable[Row]) -> list[str]:
    """What `points` can be asked for."""
    named = (metric for row in rows for scores in row.get("scores", {}).values() for metric in scores)
    return [*dict.fromkeys(named), AGREEMENT]


def _value(row: Row, task: str, metric: str | None) -> dict | None:
    if metric == AGREEMENT:
        return row["loyalty"][AGREEMENT]
    return headline(row["scores"][task]) if metric is None else row["scores"][task].get(metric)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else None
