"""Bipartite soft matching of tokens, and groups of tokens."""

import torch
import torch.nn.functional as F

from seeless.ops.ties import first_of_best, ranking

ROWS_AT_ONCE = 1024


def match_bipartite(keys: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair tokens with their most similar counterpart across two alternating sets, and take the closest pairs.

    Tokens at even places (a) each choose the token at an odd place (b) of highest cosine similarity, the first of
    equals; the `count` most similar pairs are taken, of equals those with the lower a (Bolya et al., arXiv
    2210.09461, section 3, "bipartite soft matching", steps 1 to 3).

    Args:
        keys: `[units, tokens, dim]`; similarities are worked out in float32 at least.
        count: pairs to take, at most half of the tokens.

    Returns:
        `source` and `target` `[units, count]`: tokens of a, most similar first, and their tokens of b. No token of a
        occurs twice, a token of b may.

    >>> source, target = match_bipartite(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [1.0, 0.1]]]), 1)
    >>> source.tolist(), target.tolist()
    ([[0]], [[3]])
    """
    keys = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=-1)
    a, b = keys[:, 0::2], keys[:, 1::2].transpose(1, 2)
    best, nearest = [], []
    for some in a.split(ROWS_AT_ONCE, dim=1):
        similarity = some @ b
        best.append(similarity.amax(2))
        nearest.append(first_of_best(similarity)[..., 0])
    order = ranking(torch.cat(best, 1), size=1)[:, :count]
    return 2 * order, 2 * torch.cat(nearest, 1).gather(1, order) + 1


def first_of_groups(group: torch.Tensor) -> torch.Tensor:
    """Mask `[units, tokens]` of the first token of every group; `group` `[units, tokens]` holds numbers of groups.

    >>> first_of_groups(torch.tensor([[7, 3, 7, 3, 5]])).tolist()
    [[True, True, False, False, True]]
    """
    numbers, order = group.sort(dim=1, stable=True)
    first = torch.ones_like(group, dtype=torch.bool)
    first[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    return torch.zeros_like(first).scatter(1, order, first)
