"""Clustering by density peaks."""

import torch


def density_peaks(features: torch.Tensor, count: int, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split tokens into `count` clusters around tokens that are dense, and far from any denser one.

    With D the Euclidean distance over sqrt(dim): density = exp(-mean of a token's `count` smallest D^2, its own 0
    included) + 1e-6 noise; delta = the smallest D to a denser token, for the densest the largest D of the unit. The
    centres have the highest density * delta; every other token joins the nearest centre. Du et al., "Study on Density
    Peaks Clustering Based on k-Nearest Neighbors", 2016, in the form SparseVLM (arXiv 2410.04417) uses.

    Args:
        features: `[units, tokens, dim]`.
        count: of clusters, and of neighbours, 1 <= count <= tokens.
        noise: `[tokens]` or `[units, tokens]`, in [0, 1), settles equal densities.

    Returns:
        `cluster` `[units, tokens]`, the number of every token's cluster, and `centre` `[units, count]`, the token each
        cluster is built around, the highest density * delta first. Ties go to the lower token and the earlier centre.

    >>> points = torch.tensor([[[0.0], [0.1], [0.3], [9.0], [9.2]]])
    >>> cluster, centre = density_peaks(points, 2, torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0]))
    >>> cluster.tolist(), centre.tolist()
    ([[0, 0, 0, 1, 1]], [[0, 4]])
    """
    units, tokens, dim = features.shape
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist") / dim**0.5
    nearest = distance.topk(count, dim=2, largest=False).values
    density = (-nearest.square().mean(2)).double().exp() + 1e-6 * noise.to(features.device)  # float32 loses the noise
    denser = density[:, None, :] > density[:, :, None]
    delta = torch.where(denser, distance, distance.amax((1, 2), keepdim=True)).amin(2)
    centre = (density * delta).argsort(dim=1, descending=True, stable=True)[:, :count]
    cluster = distance.gather(1, centre[..., None].expand(-1, -1, tokens)).argmin(1)
    number = torch.arange(count, device=features.device).expand(units, -1)
    return cluster.scatter(1, centre, number), centre
