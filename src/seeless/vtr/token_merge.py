"""Merging of tokens that were dropped, as SparseVLM's copy in PriorTR's framework has it (arXiv 2410.04417)."""

import torch

from seeless.ops.clustering import density_peaks

ROUNDS = 3
EPSILON = 1e-6


def cluster_counts(dropped: int) -> tuple[int, int]:
    """Of `dropped` tokens, how many are merged, int(0.3 dropped) + 1, and into how many, a tenth and one.

    >>> cluster_counts(100), cluster_counts(1), cluster_counts(0)
    ((31, 4), (1, 1), (0, 0))
    """
    count = min(dropped, int(0.3 * dropped) + 1)
    return count, count // 10 + 1 if count else 0


def kept_beside_merged(total: int, visual: int) -> int:
    """How many of `visual` tokens stay so that they and the merged ones are `total`, at least one.

    >>> kept_beside_merged(10, 100)
    7
    """
    kept = total
    for _ in range(ROUNDS):
        kept = max(1, total - cluster_counts(visual - kept)[1])
    return kept


def merge_tokens(hidden_states: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The merged tokens, `[clusters, dim]`: means of clusters, by density peaks, of the dropped tokens that score best.

    The noise that settles equal densities is drawn by `torch.rand` from the global generator.

    Args:
        hidden_states: `[dropped, dim]`.
        scores: `[dropped]`.
    """
    count, clusters = cluster_counts(len(hidden_states))
    if count == 0:
        return hidden_states
    order = scores.float().argsort(descending=True, stable=True)[:count]
    best = hidden_states[order.to(hidden_states.device)]
    noise = torch.rand(count, device=best.device)
    cluster, _ = density_peaks(best[None].float(), clusters, noise)
    member = torch.nn.functional.one_hot(cluster[0], clusters).to(best.dtype)
    return member.T @ best / (member.sum(0)[:, None] + EPSILON)
