"""Which of the contracts' combinations `make test` runs; `make test-all` runs them all.

Every test has all its combinations; those outside the short plan are marked `full` and left out unless `--all` is
given. None is chosen by chance.
"""

import itertools

import pytest
from matrix import CASES, STRATEGIES, case_id, gap

from tiny_models import BACKENDS, SOME, VARIANTS

FULL = pytest.mark.full
# What a method does to the flow of a forward: methods of one kind take the same way through the core.
KINDS = {
    "tower": ("tome", "flowcut", "mustdrop", "pixelprune"),
    "entry": (
        *("random", "uniform", "fastervlm", "vispruner", "divprune", "holov"),
        *("evs", "vidcom2", "cdpruner", "dycoke"),
        *("scope", "hiprune", "mmtok", "anchorprune", "eadp", "prunesid"),
    ),
    "merge": ("pool", "visionzip", "prumerge", "prumerge_plus", "fastvid"),
    "one layer": ("fastv", "priortr", "dart"),
    "several layers": ("pyramiddrop", "clse", "router", "tops"),
    "merge in layers": ("sparsevlm", "flashvid", "holitom", "prunevid", "vscan"),
    "second forward": ("priortr_2f",),
}
# A class token and one grid on 1-D positions; tiles and newlines; M-RoPE, windows in the tower, images and videos.
DIFFERENT = (("llava-llama-mha", "image"), ("llava_next-mistral-gqa", "image"), ("qwen2_5_vl", "video"))
# Methods that need videos, or the tower of a CLIP, meet three families that differ with these.
MORE = (("video_llava", "video"), ("llava_onevision", "video"))
DEMANDING = (
    *("evs", "vidcom2", "cdpruner", "anchorprune", "eadp"),
    *("dycoke", "flashvid", "holitom", "fastvid", "prunevid", "flowcut"),
)
ONE_IN = 3  # of the pairs that no other contract meets, the oracle meets one in so many


def differs(case) -> bool:
    return (str(case[0]), case[1]) in DIFFERENT


def methods(case, turn: int = 0) -> list[str]:
    """The methods a case meets in every contract: all of them if it is one of the three that differ, else one of every
    kind that it can meet, another one for the next case and in the contract of the next `turn`."""
    own, kind = case
    if differs(case):
        return list(STRATEGIES)
    possible = [name for name in STRATEGIES if gap(own, name, "sdpa", kind) is None]
    found = of_every_kind(CASES.index(case) + turn, possible)
    return [*found, *(DEMANDING if (str(own), kind) in MORE else ())]


def of_every_kind(number: int, possible=tuple(STRATEGIES)) -> list[str]:
    """One of the possible methods of every kind: the first for number 0, the second for number 1, and so on, around."""
    kinds = [[name for name in names if name in possible] for names in KINDS.values()]
    return [names[number % len(names)] for names in kinds if names]


def pairs(turn: int = 0):
    """Parametrizes `case` and `name` by all families and methods; `methods` are in the short plan."""
    return pytest.mark.parametrize(
        ("case", "name"),
        [
            pytest.param(case, name, id=f"{name}-{case_id(case)}", marks=() if name in methods(case, turn) else FULL)
            for case in CASES
            for name in STRATEGIES
        ],
    )


def before_the_oracle():
    """As `pairs`, for the oracle, which meets a third of the other pairs, too, in turns."""
    return pytest.mark.parametrize(
        ("case", "name"),
        [
            pytest.param(case, name, id=f"{name}-{case_id(case)}", marks=FULL if skipped(case, name) else ())
            for case in CASES
            for name in STRATEGIES
        ],
    )


def skipped(case, name) -> bool:
    """Whether the short plan leaves a pair out of the oracle's."""
    return name not in methods(case) and (CASES.index(case) + list(STRATEGIES).index(name)) % ONE_IN > 0


def backends_of(case, name) -> tuple[str, ...]:
    """Where the short plan runs the oracle for a pair: everywhere if it is one of `methods`, else on one backend."""
    return BACKENDS if name in methods(case) else one_backend(case, name, list(STRATEGIES).index(name))


def one_backend(case, name, number: int) -> tuple[str, ...]:
    """One that the pair can run on, if there is any: another one for the next case and for the next number."""
    possible = [backend for backend in BACKENDS if gap(case[0], name, backend, case[1]) is None] or BACKENDS
    return (possible[(CASES.index(case) + number) % len(possible)],)


def variants(turn: int = 0):
    """As `pairs`, for `variant` and `name`: the six LLaVAs, of which two that differ meet all methods."""
    return pytest.mark.parametrize(
        ("variant", "name"),
        [
            pytest.param(
                *(variant, name),
                id=f"{name}-{variant}",
                marks=() if variant in SOME or name in of_every_kind(number + turn) else FULL,
            )
            for number, variant in enumerate(VARIANTS)
            for name in STRATEGIES
        ],
    )


def in_turns(**axes):
    """Parametrizes two arguments by all pairs; in the short plan, each value of the longer with one of the shorter."""
    (first, left), (second, right) = axes.items()
    shorter = min(len(left), len(right))
    return pytest.mark.parametrize(
        (first, second),
        [
            pytest.param(a, b, id=f"{case_id(b)}-{case_id(a)}", marks=() if (i - j) % shorter == 0 else FULL)
            for i, a in enumerate(left)
            for j, b in enumerate(right)
        ],
    )


def covering(**axes):
    """Parametrizes arguments by all combinations; in the short plan, so few that any two values of two arguments meet.

    >>> mark = covering(a=[1, 2, 3], b=[1, 2], c=[1, 2])
    >>> [row.values for row in mark.args[1] if not row.marks]
    [(1, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1), (3, 1, 1), (3, 2, 2)]
    """
    values = [list(axis) for axis in axes.values()]
    product = list(itertools.product(*(range(len(axis)) for axis in values)))
    chosen = _greedy(product)
    rows = []
    for places in product:
        row = [axis[place] for axis, place in zip(values, places, strict=True)]
        rows.append(pytest.param(*row, id="-".join(map(case_id, row)), marks=() if places in chosen else FULL))
    return pytest.mark.parametrize(tuple(axes), rows)


def _greedy(product: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Again and again the row, the first of equals, in which the most pairs meet that have not met."""
    meetings = {row: set(itertools.combinations(enumerate(row), 2)) for row in product}
    left, chosen = set().union(*meetings.values()), set()
    while left:
        best = max(product, key=lambda row: len(left & meetings[row]))
        chosen.add(best)
        left -= meetings[best]
    return chosen
