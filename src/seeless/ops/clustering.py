"""Clustering by density peaks."""

import torch

TABLE = 67_108_864  # most distances that are held at once, 256 MiB in float32
PIECE = 8_388_608  # most that are worked on at once
BANDS = 8  # of a table of distances, each without what is left of its diagonal


def density_peaks(
    features: torch.Tensor, count: int, noise: torch.Tensor, table: int = TABLE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split tokens into `count` clusters around tokens that are dense, and far from any denser one.

    With D the Euclidean distance over sqrt(dim): density = exp(-mean of a token's `count` smallest D^2, its own 0
    included) + 1e-6 noise; delta = the smallest D to a denser token, for the densest the largest D of the unit. The
    centres have the highest density * delta; every other token joins the nearest centre. Du et al., "Study on Density
    Peaks Clustering Based on k-Nearest Neighbors", 2016, in the form SparseVLM (arXiv 2410.04417) uses.

    Args:
        features: `[units, tokens, dim]`.
        count: of clusters, and of neighbours, 1 <= count <= tokens.
        table: most distances that are held at once; where there are more, they are computed a second time.
        noise: `[tokens]` or `[units, tokens]`, in [0, 1), settles equal densities.

    Returns:
        `cluster` `[units, tokens]`, the number of every token's cluster, and `centre` `[units, count]`, the token each
        cluster is built around, the highest density * delta first. Ties go to the lower token and the earlier centre.

    >>> points = torch.tensor([[[0.0], [0.1], [0.3], [9.0], [9.2]]])
    >>> cluster, centre = density_peaks(points, 2, torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0]))
    >>> cluster.tolist(), centre.tolist()
    ([[0, 0, 0, 1, 1]], [[0, 4]])
    """
    units, tokens, _ = features.shape
    size = max(1, PIECE // (units * tokens))
    pieces = [slice(start, start + size) for start in range(0, tokens, size)]
    whole = _all_distances(features) if units * tokens**2 <= table else None

    def distances(some: slice) -> torch.Tensor:
        return _distances(features[:, some], features) if whole is None else whole[:, some]

    parts, farthest, deltas, joined = [], [], [], []
    for some in pieces:
        distance = distances(some)
        nearest = distance.topk(count, dim=2, largest=False).values
        parts.append((-nearest.square().mean(2)).double().exp())
        farthest.append(distance.amax((1, 2)))
    density = torch.cat(parts, 1) + 1e-6 * noise.to(features.device)  # float32 loses the noise
    largest = torch.stack(farthest).amax(0)[:, None, None]
    for some in pieces:
        deltas.append(torch.where(density[:, None] > density[:, some, None], distances(some), largest).amin(2))
    centre = (density * torch.cat(deltas, 1)).argsort(dim=1, descending=True, stable=True)[:, :count]
    centres = features.gather(1, centre[..., None].expand(-1, -1, features.shape[2]))
    for some in pieces:
        if whole is None:
            own = _distances(features[:, some], centres)
        else:
            own = whole[:, some].gather(2, centre[:, None].expand(-1, whole[:, some].shape[1], -1))
        joined.append(own.argmin(2))
    number = torch.arange(count, device=features.device).expand(units, -1)
    return torch.cat(joined, 1).scatter(1, centre, number), centre


def _all_distances(features: torch.Tensor) -> torch.Tensor:
    """`[units, tokens, tokens]`, those of two tokens worked out once."""
    units, tokens, _ = features.shape
    whole = features.new_empty(units, tokens, tokens)
    size = -(-tokens // BANDS)
    for start in range(0, tokens, size):
        end = min(start + size, tokens)
        whole[:, start:end, start:] = _distances(features[:, start:end], features[:, start:])
        whole[:, end:, start:end] = whole[:, start:end, end:].transpose(1, 2)
    return whole


def _distances(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Euclidean, over the root of the dimension, `[units, some, others]`."""
    return torch.cdist(some, others, compute_mode="donot_use_mm_for_euclid_dist") / some.shape[2] ** 0.5
