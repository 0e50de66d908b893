"""Which pictures go through the tower together, and their part of what a model is given."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch


def batches(sizes: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Numbers of items that go together: as many in a row as have at most `at_once` tokens, at least one.

    >>> list(batches([4, 4, 4, 9, 1], 8))
    [[0, 1], [2], [3], [4]]
    """
    some: list[int] = []
    for number, size in enumerate(sizes):
        if some and sum(sizes[own] for own in some) + size > at_once:
            yield some
            some = []
        some.append(number)
    if some:
        yield some


def taken(given: Mapping[str, Any], numbers: Sequence[int], flat: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The part of some items in what a model is given.

    Args:
        flat: how long the part of every item is in values that have the items one after the other; other values have
            one entry per item, or are a single one for all.
    """
    return {key: _part(value, numbers, flat.get(key)) for key, value in given.items()}


def _part(value: Any, numbers: Sequence[int], lengths: Sequence[int] | None) -> Any:
    if lengths is not None:
        ends = [0, *accumulate(lengths)]
        parts = [value[ends[number] : ends[number + 1]] for number in numbers]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    if isinstance(value, torch.Tensor) and value.ndim == 0:  # one for all
        return value
    if isinstance(value, torch.Tensor) and list(numbers) == list(range(len(value))):
        return value
    return value[list(numbers)] if isinstance(value, torch.Tensor) else [value[number] for number in numbers]
