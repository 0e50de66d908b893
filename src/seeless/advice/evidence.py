"""What others have published about methods on a model: in which order a source has them, and all values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from seeless.eval.beside import UNTOUCHED
from seeless.eval.published import Figure, figures

NEAR = 1.15  # a budget is near another up to this factor


@dataclass(frozen=True)
class Placed:
    """A method in a source.

    Args:
        budget: as the source prints it.
        kept: its scores as a share of the untouched model's in the same source, mean over benchmarks.
    """

    method: str
    budget: str
    kept: float


@dataclass(frozen=True)
class Ranking:
    """Methods compared within one source, the best first.

    Args:
        model: that the figures are of, as the source calls it.
        benchmarks: those for which it has all of the methods.
    """

    source: str
    citation: str
    model: str
    benchmarks: tuple[str, ...]
    places: tuple[Placed, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def published_of(model: str, method: str, share: float | None) -> list[Figure]:
    """The figures of a method on a model at the budgets of each source that are nearest to a share, if any is near.

    Args:
        model: as sources call it.
        share: None: there are none for a method that finds its own count.
    """
    if share is None:
        return []
    own = [each for each in _of(model) if each.strategy == method and _apart(each, share) <= math.log(NEAR)]
    nearest: dict[str, float] = {}
    for each in own:
        if not each.suspect:
            nearest[each.source] = min(nearest.get(each.source, math.inf), _apart(each, share))
    return [each for each in own if _apart(each, share) == nearest.get(each.source)]


def untouched_of(model: str, source: str) -> dict[tuple[str, str], float]:
    """The untouched model's values in a source, by benchmark and metric, without suspect ones."""
    own = (each for each in _of(model) if each.strategy == UNTOUCHED and each.source == source and is_score(each))
    return {(each.benchmark, each.metric): each.value for each in own}


def is_score(figure: Figure) -> bool:
    """Whether it counts: nothing speaks against it, and it is of a benchmark, not a mean over some."""
    return not figure.suspect and not figure.metric.startswith("mean")


def rank(asked: Mapping[str, float | None], model: str, benchmarks: Sequence[str] = ()) -> Ranking | None:
    """Compare methods on a model within the source that has the most of them; None if none has two.

    Sources differ in prompts and code, so values of two sources are never compared. Of sources that have as many, it is
    the one that compares the most methods altogether, since authors of a method show few others.

    Args:
        asked: by method, its share of the visual tokens.
        benchmarks: the only ones that count; all if none is named.
    """
    found: dict[str, dict[str, list[Figure]]] = {}
    for method, share in asked.items():
        for each in published_of(model, method, share):
            if is_score(each) and (not benchmarks or each.benchmark in benchmarks):
                found.setdefault(each.source, {}).setdefault(method, []).append(each)
    rankings = [one for own in found.values() if (one := _within(model, own)) is not None]

    def breadth(one: Ranking) -> tuple[int, int, int, str]:
        others = {each.method for each in _of(model) if each.source == one.source}
        return len(one.places), len(others), len(one.benchmarks), one.source

    return max(rankings, key=breadth, default=None)


def _within(model: str, own: Mapping[str, list[Figure]]) -> Ranking | None:
    """The ranking of one source; None where it compares nothing."""
    first = next(iter(own.values()))[0]
    whole = untouched_of(model, first.source)
    values = {method: {(each.benchmark, each.metric): each.value for each in given} for method, given in own.items()}
    shared = [key for key, value in whole.items() if value > 0 and all(key in each for each in values.values())]
    if len(own) < 2 or not shared:
        return None
    places = [
        Placed(method, own[method][0].budget, fmean(values[method][key] / whole[key] for key in shared))
        for method in own
    ]
    names = tuple(dict.fromkeys(benchmark for benchmark, _ in shared))
    ordered = tuple(sorted(places, key=lambda place: (-place.kept, place.method)))
    return Ranking(first.source, first.citation, model, names, ordered)


def _of(model: str) -> list[Figure]:
    return [each for each in figures() if each.model == model]


def _apart(figure: Figure, share: float) -> float:
    return math.inf if not figure.share else abs(math.log(figure.share / share))
