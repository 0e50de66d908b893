"""Intervals against published values, the Pareto front against brute force."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from seeless.eval.front import pareto_front
from seeless.eval.intervals import Z, score, wilson

# Newcombe, Statistics in Medicine 17 (1998), table I, method 3
KNOWN = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718)}


@pytest.mark.parametrize("counts", KNOWN, ids=str)
def test_wilson_against_published_values(counts):
    assert wilson(*counts) == pytest.approx(KNOWN[counts], abs=5.1e-5)


@pytest.mark.parametrize("counts", [(0, 1), (1, 1), (3, 10), (10, 10), (377, 381)], ids=str)
def test_wilson_against_scipy(counts):
    expected = binomtest(*counts).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 2000), st.data())
def test_wilson_is_the_score_test_turned_around(n, data):
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    p = right / n
    assert 0 <= low <= p <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(p - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), rel=1e-6)
    mirrored = wilson(n - right, n)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


def test_z_is_the_quantile():
    assert NormalDist().inv_cdf(0.975) == pytest.approx(Z)


@pytest.mark.parametrize("counts", [(1, 0), (-1, 3), (4, 3)])
def test_no_share(counts):
    with pytest.raises(ValueError, match="is no share"):
        wilson(*counts)


def test_score_of_counts_and_of_other_numbers():
    counted = score([1.0, 0.0, 1.0, 1.0])
    assert (counted.low, counted.high) == wilson(3, 4) and counted.n == 4
    averaged = score([0.2, 0.4, 0.9])
    half = Z * math.sqrt(0.13 / 3)  # variance of 0.2, 0.4, 0.9: 0.13
    assert (averaged.value, averaged.low, averaged.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert math.isinf(score([0.3]).high)


def beats(one, other):
    return one != other and one[0] <= other[0] and one[1] >= other[1]


NUMBERS = st.integers(0, 6).map(float)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=25))
def test_front_against_brute_force(points):
    front = pareto_front(points)
    assert sorted(front) == [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
