"""From `keep=` to counts: what is accepted, what is refused, and how shares round."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from seeless.budget import check_budget, check_schedule, count_kept


@pytest.mark.parametrize(
    "keep",
    [1, 64, 10**6, 1.0, 0.25, 1e-9, 5e-324, np.int64(3), np.uint8(1), np.float64(0.5), np.float32(1), Fraction(1, 4)],
    ids=repr,
)
def test_budgets(keep):
    check_budget(keep)
    sl.FastV(keep=keep)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, "the smallest budget is keep=1"),
        (-1, "keeps no token"),
        (np.int64(0), "keeps no token"),
        (0.0, r"must lie in \(0, 1\]"),
        (-0.5, r"must lie in \(0, 1\]"),
        (1.5, "a whole number such as keep="),
        (64.0, "a whole number such as keep=64"),
        (np.float32(2), "a whole number such as keep="),
        (math.nan, r"must lie in \(0, 1\]"),
        (math.inf, r"must lie in \(0, 1\]"),
        (-math.inf, r"must lie in \(0, 1\]"),
        (np.float64("nan"), r"must lie in \(0, 1\]"),
        (True, "is not a budget"),
        (False, "is not a budget"),
        (np.bool_(True), "is not a budget"),
        (None, "is not a budget"),
        ("0.5", "is not a budget"),
        (1j, "is not a budget"),
        ((0.5,), "is not a budget"),
        ({0.5}, "is not a budget"),
    ],
    ids=repr,
)
def test_what_is_no_budget(keep, message):
    with pytest.raises(sl.BudgetError, match=message):
        check_budget(keep)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_count_is_a_count_and_at_most_all(keep, original):
    for kind in (int, np.int64, np.int32):
        for rounding in (math.floor, math.ceil, round):
            assert count_kept(kind(keep), original, rounding) == min(keep, original)


@settings(deadline=None)
@given(st.floats(0, 1, exclude_min=True), st.integers(1, 5000))
def test_a_share_is_the_binary_product_rounded_and_at_least_one(keep, original):
    exact = Fraction(original * keep)
    down = exact.numerator // exact.denominator
    rest = exact - down
    half_even = down + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down % 2 == 1))
    assert count_kept(keep, original, math.floor) == max(1, down)
    assert count_kept(keep, original, round) == max(1, half_even)
    assert isinstance(count_kept(np.float64(keep), original, round), int)


@pytest.mark.parametrize(
    ("keep", "original", "floor", "even"),
    [
        (0.1111, 576, 63, 64),  # int(576 * 0.1111): "1/9" is not a ninth
        (0.2222, 576, 127, 128),
        (0.3333, 576, 191, 192),
        (1 / 9, 576, 64, 64),
        (0.25, 576, 144, 144),
        (0.5, 5, 2, 2),  # 2.5: half to even
        (0.5, 7, 3, 4),  # 3.5
        (0.5, 1, 1, 1),
        (0.001, 576, 1, 1),
        (0.125, 2340, 292, 292),  # 292.5
        (np.float32(0.1111), 576, 63, 64),
        (Fraction(1, 3), 10, 3, 3),
        (1.0, 576, 576, 576),
    ],
)
def test_shares_by_hand(keep, original, floor, even):
    assert count_kept(keep, original, math.floor) == floor
    assert count_kept(keep, original, round) == even


def test_methods_round_as_their_papers():
    assert sl.PriorTR(keep=0.1111).count(0, 576) == 63
    assert [sl.PyramidDrop().count(stage, 2340) for stage in range(3)] == [1170, 585, 292]
    assert [sl.FasterVLM(keep=keep).count(0, 576) for keep in (0.75, 0.5, 0.25, 0.1, 0.05)] == [432, 288, 144, 58, 29]
    assert sl.FastV(keep=0.5).count(0, 5) == sl.VisPruner(keep=0.5).count(0, 5) == 2


def test_schedules():
    check_schedule([0.5, 0.25], [2, 4])
    check_schedule([0.5, 0.5, 8, 8], [1, 2, 3, 4])  # a share and a count can only be compared on real input
    for keeps, layers, message in [
        ([0.5], [2, 4], r"2 layers \[2, 4\] need 2 budgets"),
        ([0.5, 0.25], [2], "1 layers"),
        ([0.25, 0.5], [2, 4], "grows from 0.25 to 0.5"),
        ([64, 65], [2, 4], "grows from 64 to 65"),
        ([0.5, 0.25], [4, 2], "ascending order"),
        ([0.5, 0.25], [2, 2], "each layer once"),
        ([0.5, 0], [2, 4], "keeps no token"),
        ([0.5, True], [2, 4], "is not a budget"),
        ([0.5, math.nan], [2, 4], "must lie in"),
    ]:
        with pytest.raises(sl.BudgetError, match=message):
            check_schedule(keeps, layers)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_shares_may_only_shrink(keeps):
    layers = list(range(1, len(keeps) + 1))
    if keeps == sorted(keeps, reverse=True):
        check_schedule(keeps, layers)
        sl.FastV(keep=keeps, layer=layers)
    else:
        with pytest.raises(sl.BudgetError, match="grows"):
            sl.FastV(keep=keeps, layer=layers)


def test_tuples_are_lists():
    assert sl.FastV(keep=(0.5, 0.25), layer=(2, 4)) == sl.FastV(keep=[0.5, 0.25], layer=[2, 4])


def test_numpy_numbers_are_numbers_everywhere():
    strategy = sl.PyramidDrop(keep=[np.float64(0.5), np.float32(0.25), np.float32(0.125)])
    assert [strategy.count(stage, 576) for stage in range(3)] == [288, 144, 72]


@pytest.mark.parametrize("what", ["keeps_all", "count", "json", "layer"])
def test_numpy_numbers_mean_what_pythons_mean(what):
    import json

    if what == "keeps_all":
        assert sl.FastV(keep=np.float32(1)).keeps_all(0)
    elif what == "count":
        assert isinstance(sl.FastV(keep=np.int64(3), threshold=0.1).budget(0), int)  # else the threshold outranks it
    elif what == "json":
        json.dumps(sl.FastV(keep=np.int64(3)).to_dict())
    else:
        sl.FastV(keep=3, layer=np.int64(2))
