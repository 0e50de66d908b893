"""Subsets that cover as much as possible (facility location)."""

import torch

from seeless.ops.ties import first_of_best


def greedy_cover(
    table: torch.Tensor, count: int, factor: torch.Tensor | None = None, bonus: torch.Tensor | None = None
) -> torch.Tensor:
    """Choose `count` tokens one after another, each the one that adds most to what is covered.

    Row i is covered by the largest of its entries among the chosen tokens, at least 0; a token's gain is what it would
    add over all rows: gain_j = sum_i max(0, table_ij - covered_i). The highest gain_j * factor_j + bonus_j is chosen,
    no token twice; ties, which differ by what rounding makes of the gains at the beginning, go to the lower index.
    Without factor and bonus this is the greedy of Nemhauser, Wolsey and Fisher (1978) for a submodular function.

    Args:
        table: `[units, rows, visual]`, how well each token covers each row.
        count: 1 <= count <= visual.
        factor, bonus: `[units, visual]`, not negative.

    Returns:
        `[units, count]` token indices in the order of choice.

    >>> greedy_cover(torch.tensor([[[1.0, 0.9, 0.0], [0.0, 0.9, 0.2], [0.0, 0.0, 0.5]]]), 2).tolist()
    [[1, 2]]
    """
    table = table.to(torch.promote_types(table.dtype, torch.float32))
    covered = table.new_zeros(table.shape[:2])
    gain = table.clamp(min=0).sum(1)
    factor, bonus = (None if x is None else x.to(table) for x in (factor, bonus))

    def worth(gain: torch.Tensor) -> torch.Tensor:
        own = gain if factor is None else gain * factor
        return own if bonus is None else own + bonus

    size, taken = worth(gain), torch.zeros_like(gain, dtype=torch.bool)
    chosen: list[torch.Tensor] = []
    for step in range(count):
        if step:
            covered = covered.maximum(table.gather(2, chosen[-1][:, None].expand(-1, table.shape[1], 1))[..., 0])
            gain = (table - covered[..., None]).clamp_(min=0).sum(1)
        chosen.append(first_of_best(worth(gain).masked_fill(taken, -torch.inf), size))
        taken = taken.scatter(1, chosen[-1], True)
    return torch.cat(chosen, 1)
