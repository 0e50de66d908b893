"""From `keep=` to whole numbers of tokens; and the check of fields that are text."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Integral, Real

from seeless.errors import BudgetError

Budget = float | int


def check_budget(keep: object, name: str = "keep") -> None:
    """Raise `BudgetError` unless `keep` is one budget: a whole number of tokens >= 1, or a share in (0, 1].

    Args:
        name: of the argument, for the message.
    """
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise BudgetError(f"{name}={keep!r} is not a budget; give a share (0.25) or a number of tokens (64)")
    if isinstance(keep, Integral):
        if int(keep) < 1:
            raise BudgetError(f"{name}={keep} keeps no token; the smallest budget is {name}=1, one token per unit")
    elif not (math.isfinite(keep) and 0 < float(keep) <= 1):
        raise BudgetError(
            f"{name}={keep} is not a share of the visual tokens; a float must lie in (0, 1], "
            f"and a number of tokens must be a whole number such as {name}=64"
        )


def check_text(name: str, value: str | None) -> None:
    """Raise `BudgetError` if a field is given a text of nothing but blanks."""
    if value is not None and not value.strip():
        raise BudgetError(f"{name}={value!r} is no text; give a string, or leave it out")


def check_schedule(keeps: Sequence[Budget], layers: Sequence[int]) -> None:
    """Raise `BudgetError` unless there is one budget per layer, each no larger than the one before."""
    if len(keeps) != len(layers):
        raise BudgetError(
            f"{len(layers)} layers {list(layers)} need {len(layers)} budgets, but keep={list(keeps)} has {len(keeps)}"
        )
    for keep in keeps:
        check_budget(keep)
    if list(layers) != sorted(set(layers)):
        raise BudgetError(f"layer={list(layers)} must name each layer once, in ascending order")
    for before, after in zip(keeps, keeps[1:], strict=False):
        if isinstance(before, Integral) == isinstance(after, Integral) and after > before:
            raise BudgetError(f"keep={list(keeps)} grows from {before} to {after}; tokens once dropped cannot return")


def is_one_of(budget: object, *others: object) -> bool:
    """Whether a budget is the same as another, 1 being a token and 1.0 all of them.

    >>> is_one_of(1.0, None, 1.0), is_one_of(1, None, 1.0)
    (True, False)
    """
    return repr(budget) in map(repr, others)


def count_kept(keep: Budget, original: int, rounding: Callable[[float], int]) -> int:
    """Tokens to keep of a unit that had `original` visual tokens: at least one, at most all.

    >>> count_kept(0.25, 576, round), count_kept(64, 576, round), count_kept(0.1111, 576, math.floor)
    (144, 64, 63)
    """
    wanted = int(keep) if isinstance(keep, Integral) else int(rounding(original * float(keep)))
    return max(1, min(wanted, original))


@lru_cache(maxsize=1024, typed=True)  # 1 is a token, 1.0 is all of them
def counts_on_average(
    average: Budget, original: int, layers: tuple[int, ...], depth: int, ratios: tuple[float, ...]
) -> list[int]:
    """How many tokens of a unit stay at every stage, so that the decoder's layers see `average` of them on average.

    The real numbers in proportion to `ratios`, at least one and at most all, that give the average are rounded up or
    down, so that the sum over all layers is as near as that allows, and of such roundings the nearest are taken.

    Args:
        average: a number of tokens, or a share of `original`.
        original: tokens of the unit.
        layers: before which the stages are; 0 is the entry.
        depth: layers of the decoder.
        ratios: of the stages' counts, not growing.

    Raises:
        BudgetError: the average is less than the layers before the first stage see alone, or more than all.

    >>> counts_on_average(192, 576, (2,), 32, (1.0,)), counts_on_average(0.5, 576, (8, 16, 24), 32, (4, 2, 1))
    ([166], [329, 165, 82])
    """
    wanted = float(average) * (1 if isinstance(average, Integral) else original)
    widths = [after - before for before, after in zip(layers, [*layers[1:], depth], strict=True)]
    least = (layers[0] * original + depth - layers[0]) / depth
    if not least <= wanted <= original:
        low = f"{math.ceil(least)}" if isinstance(average, Integral) else f"{math.ceil(1e4 * least / original) / 1e4}"
        tokens, most = (f" of {original} visual tokens", original) if isinstance(average, Integral) else ("", 1.0)
        raise BudgetError(
            f"average={average}{tokens} is not possible where the first cut is before layer {layers[0]} of {depth}; "
            f"give from {low} to {most}"
        )
    left = wanted * depth - layers[0] * original
    ideal = _in_proportion(left, original, widths, ratios)
    whole = [min(original, math.floor(each + 1e-9)) for each in ideal]
    # By the last stage's count and the sum so far: the distance from the ideal, and the counts.
    found: dict[tuple[int, int], tuple[float, list[int]]] = {(original, 0): (0.0, [])}
    for number, floor, width in zip(ideal, whole, widths, strict=True):
        reached: dict[tuple[int, int], tuple[float, list[int]]] = {}
        for (before, total), (distance, counts) in found.items():
            for count in {floor, min(floor + 1, original)}:
                key, new = (count, total + count * width), (distance + (count - number) ** 2, [*counts, count])
                if count <= before and (key not in reached or new < reached[key]):
                    reached[key] = new
        found = reached
    return min((abs(total - left), *each) for (_, total), each in found.items())[2]


def _in_proportion(left: float, original: int, widths: list[int], ratios: Sequence[float]) -> list[float]:
    """Real counts from one to all in proportion to `ratios`, whose sum over `widths` layers each is `left`."""

    def at(factor: float) -> list[float]:
        return [min(float(original), max(1.0, factor * ratio)) for ratio in ratios]

    low, high = 0.0, original / min(ratios)
    for _ in range(100):
        middle = (low + high) / 2
        if sum(count * width for count, width in zip(at(middle), widths, strict=True)) < left:
            low = middle
        else:
            high = middle
    return at(high)
