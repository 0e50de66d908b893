"""Subsets of large determinant."""

import torch

from seeless.ops.ties import first_of_best, rounding


def greedy_map(kernel: torch.Tensor, count: int) -> torch.Tensor:
    """Choose `count` tokens one after another, each so that the determinant of the chosen part of `kernel` grows most.

    Greedy maximum a posteriori of a determinantal point process by incremental Cholesky rows (Chen et al., NeurIPS
    2018, arXiv 1709.05135, algorithm 1; CDPruner, arXiv 2506.10967): j = argmax g, g at first the diagonal;
    e = (K_j - sum_i c_ij c_i) / sqrt(g_j); g = g - e^2. No token is chosen twice. All in float64,
    since differences are divided by what may be almost nothing; what float32 could not tell from 0 beside the diagonal
    counts as 0, and a token of g = 0 leaves g as it is. Ties, which differ by no more, go to the lower index. The
    choices come one after the other, each of which takes visual operations for every one before.

    Args:
        kernel: `[units, visual, visual]`, positive semidefinite.
        count: 1 <= count <= visual.

    Returns:
        `[units, count]` token indices in the order of choice.

    >>> greedy_map(torch.tensor([[[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 0.5]]]), 2).tolist()
    [[0, 2]]
    """
    units, visual, _ = kernel.shape
    kernel = kernel.double()
    diagonal = gain = kernel.diagonal(dim1=1, dim2=2)
    taken = torch.zeros(units, visual, dtype=torch.bool, device=kernel.device)
    rows = kernel.new_zeros(units, count, visual)
    chosen = []
    for step in range(count):
        best = first_of_best(gain.masked_fill(taken, -torch.inf).float(), diagonal.float())
        chosen.append(best)
        taken = taken.scatter(1, best, True)
        before = rows[:, :step]
        own = before.gather(2, best[..., None].expand(-1, step, 1))
        left = kernel.gather(1, best[..., None].expand(-1, 1, visual))[:, 0] - (own * before).sum(1)
        scale = gain.gather(1, best)
        rows[:, step] = torch.where(scale > 0, left / scale.sqrt(), 0)
        gain = gain - rows[:, step].square()
        gain = torch.where(gain > rounding(torch.float32) * diagonal, gain, 0)
    return torch.cat(chosen, 1)
