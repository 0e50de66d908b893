"""The method and budget to begin with, of those that suit, by what is measured here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import seeless as sl
from seeless.advice.advising import About, Suited, ranked
from seeless.advice.candidates import Candidate, candidate
from seeless.advice.evidence import Ranking
from seeless.advice.latency import Wish, largest_budgets
from seeless.advice.uses import BUDGETS
from seeless.errors import one_line

MEASURED = 4  # methods, the first ones
Row = dict[str, Any]  # of seeless.bench.measure
Time = Callable[[Sequence[Candidate]], tuple[Row, dict[str, Row]]]  # seeless.advice.measuring.timed


@dataclass(frozen=True)
class Chosen:
    """What to begin with.

    Args:
        whole: the row of the untouched model.
        runs: what was measured, each with its row; with a wish, of every method the largest budget that reaches it, or
            the smallest that there is.
        best: None where the untouched model is soon enough, or nothing is.
        ranking: why it is the best; None where nothing that was measured is compared in any source.
        in_common: what the ranking's model has in common with the one advised on; "" if it is that one.
        reason: why there is no best one; "" if there is.
        soon_enough: whether that is because the untouched model reaches the wish.
    """

    use: Suited
    wish: Wish | None
    whole: Row
    runs: tuple[tuple[Candidate, Row], ...]
    best: Candidate | None
    ranking: Ranking | None
    in_common: str
    reason: str = ""
    soon_enough: bool = False


def choose_at_once(about: About, use: Suited, time: Time) -> Chosen:
    """The first of the methods that suit, at the use's own budget; the first few are measured."""
    tried = use.candidates[:MEASURED]
    whole, rows = time(tried)
    runs = tuple((one, rows[one.name]) for one in tried)
    for one, row in runs:
        if "refused" not in row:
            ranking, in_common = ranked(about, {one.name: one.share for one in tried}, use.use.benchmarks)
            return Chosen(use, None, whole, runs, one, ranking, in_common)
    reasons = "; ".join(f"{one.name}: {row['refused']}" for one, row in runs)
    return Chosen(use, None, whole, runs, None, None, "", f"none of them runs on such a request: {reasons}")


def choose_in_time(about: About, use: Suited, wish: Wish, time: Time) -> Chosen:
    """The best of those that reach a wish, each at the largest budget with which it does, as measured.

    The best is the first of a source that compares them at these budgets; where there is none, the one that keeps most,
    of equal ones the one that suits best.
    """
    names = [one.name for one in use.candidates if one.share is not None][:MEASURED]
    whole, _ = time([])
    if wish.seconds is not None and wish.reached(whole):
        return Chosen(use, wish, whole, (), None, None, "", f"the untouched model has {wish} by itself", True)

    def timed(asked: Mapping[str, Fraction]) -> Mapping[str, Row]:
        found, rows = [], {}
        for name, share in asked.items():
            if (reason := _reason(about, name, share)) is None:
                found.append(candidate(name, share, about.tokens))
            else:
                rows[name] = {"refused": reason}
        return {**rows, **(time(found)[1] if found else {})}

    reached, short = largest_budgets(wish, names, BUDGETS, timed)
    runs = {
        name: (candidate(name, share, about.tokens), row)
        for name, (share, row) in {**reached, **short}.items()
        if "refused" not in row
    }
    shares = {name: float(share) for name, (share, _) in reached.items()}
    ranking, in_common = ranked(about, shares, use.use.benchmarks)
    if not reached:
        return Chosen(use, wish, whole, tuple(runs.values()), None, None, "", _nothing_reaches(wish, runs))
    most = max((name for name in names if name in reached), key=lambda name: reached[name][1]["tokens"]["average"])
    best = ranking.places[0].method if ranking else most
    return Chosen(
        use, wish, whole, tuple(runs[name] for name in names if name in runs), runs[best][0], ranking, in_common
    )


def _reason(about: About, name: str, share: Fraction) -> str | None:
    try:
        return about.reason_against(candidate(name, share, about.tokens))
    except sl.SeelessError as error:
        return one_line(error)


def _nothing_reaches(wish: Wish, runs: Mapping[str, tuple[Candidate, Row]]) -> str:
    if not runs:
        return f"nothing that suits could be run down to {wish}"
    one, row = min(runs.values(), key=lambda run: run[1]["seconds"]["first"]["median"])
    soon = f"{1e3 * row['seconds']['first']['median']:.4g} ms, {100 / row['speed_up']['first']:.0f} % of the untouched"
    written = ", ".join(f"{name}={value}" for name, value in one.fields.items())
    return (
        f"nothing measured here reaches {wish}; the soonest is {one.name} with {written}: {soon}; wish for more time, "
        "or take smaller pictures"
    )
