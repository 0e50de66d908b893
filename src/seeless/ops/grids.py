"""Places on the grid of a picture."""

import torch


def around(mask: torch.Tensor, grid: tuple[int, int, int], wrapping: bool) -> torch.Tensor:
    """The places of a mask and their neighbours, left, right, above and below.

    Args:
        mask: `[units, visual]` bool.
        grid: (frames, height, width).
        wrapping: neighbours are the places one and `width` before and after, whatever row or frame they are in, and
            what would lie outside is the first or the last place; else there are none across edges.

    Returns:
        `[units, visual]` bool.

    >>> around(torch.tensor([[False, False, True, False, False, False]]), (1, 2, 3), False).int().tolist()
    [[0, 1, 1, 0, 0, 1]]
    >>> around(torch.tensor([[False, False, True, False, False, False]]), (1, 2, 3), True).int().tolist()
    [[1, 1, 1, 1, 0, 1]]
    """
    if wrapping:
        visual = mask.shape[1]
        place = torch.arange(visual, device=mask.device)
        found = mask
        for step in (-1, 1, -grid[2], grid[2]):
            target = (place + step).clamp(0, visual - 1).expand(mask.shape)
            found = found | (torch.zeros_like(mask, dtype=torch.int32).scatter_add(1, target, mask.int()) > 0)
        return found
    full = mask.unflatten(1, grid)
    found = full.clone()
    for dim in (2, 3):
        size = full.shape[dim] - 1
        found.narrow(dim, 0, size).logical_or_(full.narrow(dim, 1, size))
        found.narrow(dim, 1, size).logical_or_(full.narrow(dim, 0, size))
    return found.flatten(1)


def windows(grid: tuple[int, int, int], side: int) -> list[int]:
    """For every place, in raster order, the number of its window: each frame is cut into `side` by `side` of them, as
    even as its height and width allow, at most one for each row and column.

    >>> windows((1, 2, 5), 2)
    [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    """
    frames, height, width = grid
    down, across = min(side, height), min(side, width)
    first = [row * down // height * across for row in range(height)]
    inside = [column * across // width for column in range(width)]
    per_frame = [a + b for a in first for b in inside]
    return [frame * down * across + own for frame in range(frames) for own in per_frame]


def smoothed(values: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """Values through a Gaussian of 3 x 3 (sigma 1) on the grid of each frame; what lies outside mirrors what is inside,
    the edge itself not repeated (a side of one is its own mirror).

    Args:
        values: `[units, visual]`.
        grid: (frames, height, width).

    Returns:
        `[units, visual]`.
    """
    weight = torch.exp(-(torch.arange(-1.0, 2.0, device=values.device, dtype=values.dtype) ** 2) / 2)
    weight = weight / weight.sum()
    full = values.unflatten(1, grid)
    for dim in (2, 3):
        size = full.shape[dim]
        inner = 1 if size > 1 else 0
        before = torch.cat([full.narrow(dim, inner, 1), full.narrow(dim, 0, size - 1)], dim)
        after = torch.cat([full.narrow(dim, 1, size - 1), full.narrow(dim, size - 1 - inner, 1)], dim)
        full = weight[0] * before + weight[1] * full + weight[2] * after
    return full.flatten(1)
