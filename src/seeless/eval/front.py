"""The Pareto front: runs that no other run beats."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, gain) points that no other point beats, by cost, then in their order.

    One point beats another if it costs no more and gains no less, and is better in one of the two; equal points are
    both on the front.

    >>> pareto_front([(72, 0.9), (36, 0.9), (36, 0.5), (7, 0.4)])
    [3, 1]
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    best, at = float("-inf"), float("nan")
    for i in order:
        cost, gain = points[i]
        if gain > best or (gain == best and cost == at):
            front.append(i)
            best, at = gain, cost
    return front
