"""The budget that reaches a wish, found by halving, is the one that trying all finds; and what is chosen then."""

import dataclasses
import itertools
from fractions import Fraction

import pytest

from seeless import models
from seeless.advice import choosing
from seeless.advice.advising import About, suited
from seeless.advice.choosing import choose_at_once, choose_in_time
from seeless.advice.latency import Wish, largest_budgets, read_wish
from seeless.advice.uses import BUDGETS, use_named
from seeless.eval.errors import InvalidRequest
from seeless.tiny import load_tiny


@pytest.fixture(scope="module")
def about():
    model, _ = load_tiny()
    return About("the embedded model", None, None, model, models.describe(model, strategies=()))


def row(seconds, whole=1.0, tokens=1):
    found = {"median": seconds}
    return {"seconds": {"first": found}, "speed_up": {"first": whole / seconds}, "tokens": {"average": tokens}}


@pytest.mark.parametrize("wish", [Wish(0.5, None), Wish(None, 0.5)])
def test_halving_finds_what_trying_all_finds(wish):
    for reach in itertools.product(range(len(BUDGETS) + 1), repeat=2):  # of two methods, the first budget soon enough
        from_where, asked = dict(zip("ab", reach, strict=True)), []

        def timed(budgets, from_where=from_where, asked=asked):
            asked.append(budgets)
            return {
                name: row(0.4 if BUDGETS.index(share) >= from_where[name] else 0.6) for name, share in budgets.items()
            }

        reached, short = largest_budgets(wish, "ab", BUDGETS, timed)
        assert {name: share for name, (share, _) in reached.items()} == {
            name: BUDGETS[first] for name, first in from_where.items() if first < len(BUDGETS)
        }
        assert {name: share for name, (share, _) in short.items()} == {
            name: BUDGETS[-1] for name, first in from_where.items() if first == len(BUDGETS)
        }
        assert len(asked) <= 3


def test_a_refused_budget_does_not_reach():
    def timed(budgets):
        return {"a": {"refused": "too deep"} if budgets["a"] < Fraction(1, 3) else row(0.6)}

    reached, short = largest_budgets(Wish(0.5, None), ["a"], BUDGETS, timed)
    assert reached == {} and short["a"][1] == {"refused": "too deep"}


@pytest.mark.parametrize("text", ["", "0", "0.0", "-3", "fast", "1.0", "120%", "3s", "1e3", ".", "ms", "1" * 30])
def test_what_is_no_wish(text):
    with pytest.raises(InvalidRequest, match="--latency"):
        read_wish(text)


def fake(times, asked):
    """Times by method and share of 144 tokens; the untouched model takes a second."""

    def time(candidates):
        asked.append([(one.name, one.fields["keep"]) for one in candidates])
        return row(1.0, tokens=144), {
            one.name: row(times(one.name, one.fields["keep"]), tokens=one.fields["keep"]) for one in candidates
        }

    return time


def test_the_best_of_those_that_are_soon_enough(about):
    """All reach it, with budgets of their own; a source compares them there, or else the one that keeps most wins."""
    use = suited(about, use_named("conversation"))
    names = [one.name for one in use.candidates][: choosing.MEASURED]
    asked = []
    found = choose_in_time(about, use, Wish(None, 0.5), fake(lambda name, keep: keep / 64, asked))
    assert asked[0] == [] and {keep for _, keep in asked[-1]} <= {108, 72, 48, 32, 16, 8}
    assert [(one.name, one.fields) for one, _ in found.runs] == [(name, {"keep": 32}) for name in names]
    assert found.best.name == found.ranking.places[0].method and found.reason == ""
    slow = dict.fromkeys(names, 16) | {names[2]: 48}
    found = choose_in_time(about, use, Wish(0.5, None), fake(lambda name, keep: keep / (2 * slow[name]), []))
    assert {one.name: one.fields["keep"] for one, _ in found.runs} == slow
    assert found.ranking is not None or found.best.name == names[2]


def test_a_wish_that_nothing_reaches_and_one_that_needs_nothing(about):
    use = suited(about, use_named("conversation"))
    found = choose_in_time(about, use, Wish(0.01, None), fake(lambda name, keep: 0.5 + keep / 1000, []))
    assert found.best is None and not found.soon_enough
    assert "the soonest is" in found.reason and "keep=8: 508 ms, 51 % of the untouched" in found.reason
    found = choose_in_time(about, use, Wish(2.0, None), fake(lambda name, keep: 9.0, asked := []))
    assert found.best is None and found.soon_enough and asked == [[]]


def test_where_nothing_is_compared_what_is_published_comes_first(about):
    video = dataclasses.replace(about, description=dataclasses.replace(about.description, videos=True), tried={})
    use = suited(video, use_named("video"))
    assert use.ranking is None and use.candidates[0].name == "vidcom2" and len(use.candidates) == 7
    assert suited(about, use_named("video")).refused.keys() == {one.name for one in use.candidates}


def test_the_first_that_runs_is_chosen(about):
    use = suited(about, use_named("question"))

    def time(candidates):
        first, *others = [one.name for one in candidates]
        return row(1.0), {first: {"refused": "no"}} | {name: row(0.7) for name in others}

    found = choose_at_once(about, use, time)
    assert found.best is use.candidates[1] and len(found.runs) == choosing.MEASURED
    found = choose_at_once(about, use, lambda all: (row(1.0), {one.name: {"refused": "too large"} for one in all}))
    assert found.best is None and "too large" in found.reason
