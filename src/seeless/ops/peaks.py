"""Clusters by density peaks in many sets of tokens at once, of which each has clusters of its own number."""

import torch

from seeless.ops.ties import first_of_best, ranking

DISTANCES_AT_ONCE = 4_194_304
MOST_NEIGHBOURS = 7
NOTHING = 1e-13  # of the squares, what float64 makes of a difference of equal tokens


def peak_clusters(
    features: torch.Tensor, present: torch.Tensor, count: torch.Tensor, neighbours: torch.Tensor | int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose tokens that are dense, and far from any denser one, and send every token to the nearest of them.

    With D the Euclidean distance over sqrt(dim): density = exp(-mean of a token's smallest D^2, its own 0 included);
    delta = the smallest D to a denser token, for the densest the largest D of its set. The centres have the highest
    density * delta. What is equal goes to the lower place: of two tokens of one density the first is the denser. Du et
    al., "Study on Density Peaks Clustering Based on k-Nearest Neighbors", 2016, in the form of FastVID (arXiv
    2503.11187), which adds noise to densities.

    Args:
        features: `[sets, tokens, dim]`.
        present: `[sets, tokens]` bool, which tokens are in the set.
        count: `[sets]`, centres to choose, at most as many as are present.
        neighbours: `[sets]` or one number for all, how many smallest distances make a density, 1 to 7; all where there
            are fewer tokens.

    Returns:
        `centre` `[sets, tokens]` bool, and `nearest` `[sets, tokens]`, the place of each token's nearest centre, of a
        centre its own; of no meaning where a set has none.

    >>> points = torch.tensor([[[0.0], [0.1], [0.3], [9.0], [9.2]]])
    >>> centre, nearest = peak_clusters(points, torch.ones(1, 5).bool(), torch.tensor([2]), 2)
    >>> centre.tolist(), nearest.tolist()
    ([[True, False, False, True, False]], [[0, 0, 0, 3, 3]])
    """
    tokens = features.shape[1]
    neighbours = torch.full_like(count, neighbours) if isinstance(neighbours, int) else neighbours
    size = max(1, DISTANCES_AT_ONCE // tokens**2)
    parts = zip(*(x.split(size) for x in (features, present, count, neighbours)), strict=True)
    centres, nearest = zip(*(_of_some(*part) for part in parts), strict=True)
    return torch.cat(centres), torch.cat(nearest)


def _of_some(
    features: torch.Tensor, present: torch.Tensor, count: torch.Tensor, neighbours: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, dim = features.shape[1:]
    distance = _distances(features) / dim**0.5
    near = distance.masked_fill(~present[:, None], torch.inf)
    near = near.topk(min(MOST_NEIGHBOURS, tokens), dim=2, largest=False).values
    place = torch.arange(tokens, device=features.device)
    counted = (place[: near.shape[2]] < neighbours[:, None, None]) & near.isfinite()
    squares = near.masked_fill(~counted, 0).square().sum(2) / counted.sum(2).clamp(min=1)
    density = (-squares.double()).exp()
    denser = (density[:, None] > density[..., None]) | (
        (density[:, None] == density[..., None]) & (place < place[:, None])
    )
    both = present[:, None] & present[..., None]
    widest = distance.masked_fill(~both, 0).amax((1, 2), keepdim=True)
    delta = torch.where(denser & both, distance, widest).amin(2)
    score = (density * delta).float().masked_fill(~present, -1.0)
    centre = (ranking(score).argsort(dim=1) < count[:, None]) & present
    nearest = first_of_best(-distance.masked_fill(~centre[:, None], torch.inf), 0.0)[..., 0]
    return centre, torch.where(centre, place, nearest)


def _distances(features: torch.Tensor) -> torch.Tensor:
    """Euclidean, `[sets, tokens, tokens]`, float32, from one product in float64: those of equal tokens are equal."""
    wide = features.double()
    product = wide @ wide.transpose(1, 2)
    square = product.diagonal(dim1=1, dim2=2)
    sizes = square[:, :, None] + square[:, None]
    apart = sizes - 2 * product
    return torch.where(apart > NOTHING * sizes, apart, 0).sqrt().float()
