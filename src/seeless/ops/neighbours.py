"""Lists of nearest neighbours, of tokens that become fewer and fewer."""

from collections.abc import Callable

import torch

COUNT = 32  # neighbours on a list
AHEAD = 4  # that are looked at first: one of them will do for fifteen tokens in sixteen
PIECE = 4_194_304  # most similarities that are worked on at once


def neighbour_lists(tokens: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Look up who resembles whom, among fewer and fewer tokens; on the host, since each step depends on values.

    A token's list has the most similar others of those that were left when it was made, the most similar first. Where
    none on it will do, its token's similarities are multiplied out, and the list is made anew; so are, at that
    opportunity, all lists of which half is gone.

    Args:
        tokens: `[tokens, dim]`, float64, of length 1.

    Returns:
        A function of the indices of two sets of tokens, `a` and `b`, that are together what is left. It gives the
        highest similarity of each of `a` to any of `b`, `[a]`, worked out in float64 and rounded to float32.
    """
    place = torch.arange(len(tokens))  # where each now stands among `tokens`
    count = min(COUNT, len(tokens))
    similar, near = torch.empty(len(tokens), count), torch.empty(len(tokens), count, dtype=torch.long)

    def multiplied(some: torch.Tensor, left: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The highest similarity of some tokens to any of `b`; makes their lists of what is left."""
        away, other = (torch.ones(len(tokens), dtype=torch.bool).index_fill(0, own, False) for own in (left, b))
        best = []
        for part in some.split(max(1, PIECE // len(tokens))):
            own = (tokens[part] @ tokens.T).float().masked_fill_(away, -torch.inf)
            similar[part], near[part] = own.topk(count, dim=1)
            best.append(own.masked_fill_(other, -torch.inf).amax(1))
        return torch.cat(best)

    def nearest(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        nonlocal tokens, similar, near
        left = torch.cat([a, b])
        if count <= len(left) < len(tokens) / 2:  # give up those that are gone, on lists one behind the last
            now = torch.full((len(tokens) + 1,), len(left)).index_copy(0, place[left], torch.arange(len(left)))
            own = place[left]
            tokens, similar, near = tokens[own], similar[own], now[near[own]]
            place[left] = torch.arange(len(left))
        left = place[left]
        b = left[len(a) :]
        among = torch.zeros(len(tokens) + 1, dtype=torch.bool).index_fill(0, b, True)
        found, missing = torch.empty(len(a)), torch.arange(len(a))
        for part in (slice(AHEAD), slice(None)):
            some = left[missing]
            will_do = among[near[some, part]]
            best = similar[some, part].masked_fill_(~will_do, -torch.inf)
            has = will_do.any(1)
            found[missing[has]], missing = best[has].amax(1), missing[~has]
        if len(missing):
            there = torch.zeros_like(among).index_fill(0, left, True)
            short = there[near[left]].sum(1) < COUNT // 2
            short[missing] = False
            again = left[torch.cat([missing, short.nonzero()[:, 0]])]
            found[missing] = multiplied(again, left, b)[: len(missing)]
        return found

    multiplied(place, place, place)
    return nearest
