"""Cosine similarities and the removal of near-duplicates."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from seeless.ops.neighbours import neighbour_lists

LONG = 1_024  # longest list that is thinned on a CPU as on a device
TABLE = 67_108_864  # most similarities that are held at once, 256 MiB in float32
PIECE = 16_777_216  # most that are worked on at once


def drop_duplicates(
    features: torch.Tensor, order: torch.Tensor, count: int, step: int = 8, ascending: bool = False
) -> torch.Tensor:
    """Thin a list of tokens to `count`, at each turn removing up to `step` that most resemble another.

    The list is split by alternation into a and b. The tokens of a that are most similar (cosine) to any of b leave;
    the rest of a, in descending order of that similarity, followed by b, is the next list (VisPruner, ICCV 2025,
    arXiv 2412.01818v2, section 3.3). Odd lists give a the extra token, and never more than all of a leaves at once.

    All similarities are computed once, and each turn looks its own up: on a CPU, in lists of more than 1,024 tokens,
    among each token's nearest neighbours (`ops.neighbours`), else in a table; lists too long for that (more than 8,192
    tokens of one unit) compute those of each turn. All are worked out in float64 and rounded to float32, so that equal
    tokens are equally similar. There are (listed - count) / step turns, one after the other.

    Args:
        features: `[units, visual, dim]`.
        order: `[units, listed]`, token indices; their order decides the pairing.
        count: how many to leave, 0 <= count <= listed.
        step: largest number removed at a time.
        ascending: put the survivors of a in ascending order of similarity instead.

    Returns:
        `[units, count]` token indices.
    """
    if count == 0:
        return order[:, :0]
    units, listed = order.shape
    own = _rows(F.normalize(features.double(), dim=-1), order)  # of the tokens listed, at their first places
    place = torch.arange(listed, device=order.device).expand(units, -1)
    if listed > LONG and order.device.type == "cpu":
        place = torch.cat([_thinned(place[:1], count, step, ascending, _listed(unit)) for unit in own])
    elif units * listed**2 <= TABLE:
        place = _thinned(place, count, step, ascending, partial(_looked_up, (own @ own.transpose(1, 2)).float()))
    else:
        place = _thinned(place, count, step, ascending, partial(_multiplied, own))
    return order.gather(1, place)


def _thinned(place: torch.Tensor, count: int, step: int, ascending: bool, nearest: Callable) -> torch.Tensor:
    """What is left, `[units, count]`, of tokens `[units, listed]`; `nearest(a, b)` gives the highest similarity of each
    of `a` to any of `b`, `[units, a]`."""
    while (left := place.shape[1]) > count:
        a, b = place[:, 0::2], place[:, 1::2]
        removed = min(step, left - count, a.shape[1])
        ranked = nearest(a, b).argsort(dim=1, descending=True, stable=True)[:, removed:]
        if ascending:
            ranked = ranked.flip(1)
        place = torch.cat([a.gather(1, ranked), b], dim=1)
    return place


def _listed(tokens: torch.Tensor) -> Callable:
    """The same of one unit's tokens `[listed, dim]`, from lists of neighbours."""
    nearest = neighbour_lists(tokens)
    return lambda a, b: nearest(a[0], b[0])[None]


def _rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`x` `[units, n, dim]` at `index` `[units, m]`."""
    first = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (index + first).flatten()).view(*index.shape, -1)


def _looked_up(table: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """From a table of all similarities."""
    away = torch.ones(table.shape[:2], dtype=torch.bool, device=table.device).scatter(1, b, False)[:, None]
    size = max(1, PIECE // (len(table) * table.shape[2]))
    return torch.cat([_rows(table, some).masked_fill_(away, -torch.inf).amax(2) for some in a.split(size, dim=1)], 1)


def _multiplied(own: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of tokens `[units, listed, dim]`, multiplied out."""
    others = _rows(own, b).transpose(1, 2)
    size = max(1, PIECE // b.numel())
    return torch.cat([(_rows(own, some) @ others).float().amax(2) for some in a.split(size, dim=1)], 1)
