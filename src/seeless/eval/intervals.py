"""How sure a share is: 95 % intervals of what was counted or averaged."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

Z = 1.959963984540054  # of the normal distribution, 95 % two-sided


@dataclass(frozen=True)
class Score:
    """A mean of `n` values, and the interval from `low` to `high` that holds the true one in 95 of 100 cases."""

    value: float
    n: int
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain JSON."""
        return asdict(self)


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share: with p = right / n, the ends solve |p - x| = z sqrt(x (1 - x) / n).

    Wilson, "Probable inference, the law of succession, and statistical inference", 1927, doi 10.2307/2276774. It
    stays within 0 and 1 and has a width where everything was right.

    >>> [round(end, 4) for end in wilson(8, 10)], [round(end, 4) for end in wilson(10, 10)]
    ([0.4902, 0.9433], [0.7225, 1.0])

    Raises:
        ValueError: `n` is below 1, or `right` not between 0 and `n`.
    """
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"{right} of {n} is no share")
    p, shrink = right / n, 1 + Z * Z / n
    centre = (p + Z * Z / (2 * n)) / shrink
    half = Z / shrink * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    low = 0.0 if right == 0 else max(0.0, centre - half)
    return low, 1.0 if right == n else min(1.0, centre + half)


def score(values: Sequence[float]) -> Score:
    """The mean of one value per question: with Wilson's interval where all are 0 or 1, else mean +- z sd / sqrt(n).

    >>> score([1, 1, 0, 1]).value
    0.75

    Raises:
        ValueError: there is no value.
    """
    n = len(values)
    if all(value in (0, 1) for value in values):
        low, high = wilson(round(sum(values)), n)
    else:
        half = Z * stdev(values) / math.sqrt(n) if n > 1 else math.inf
        low, high = fmean(values) - half, fmean(values) + half
    return Score(fmean(values), n, low, high)
