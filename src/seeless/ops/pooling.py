"""Average pooling of a token grid to an exact number of cells."""

import torch


def pooling_cells(height: int, width: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split a grid into exactly `count` rectangular cells, as even and as square as the count allows.

    The grid is cut into bands of rows; the bands are cut into columns, and where `count` is no multiple of the number
    of bands, some bands get one column more.

    Returns:
        `cell` `[height * width]`: the cell of every token, cells numbered in raster order.
        `centre` `[count]`: the token nearest to the middle of every cell, ascending.

    >>> cell, centre = pooling_cells(4, 4, 4)
    >>> cell.view(4, 4).tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    >>> centre.tolist()
    [5, 7, 13, 15]
    """
    bands = max(1, min(height, round((count * height / width) ** 0.5)))
    while bands < height and -(-count // bands) > width:
        bands += 1
    bands = min(bands, count)
    cell = [[0] * width for _ in range(height)]
    centre = []
    first = 0
    for band in range(bands):
        top, bottom = band * height // bands, (band + 1) * height // bands
        columns = (band + 1) * count // bands - band * count // bands
        for column in range(columns):
            left, right = column * width // columns, (column + 1) * width // columns
            for row in cell[top:bottom]:
                row[left:right] = [first + column] * (right - left)
            centre.append((top + bottom) // 2 * width + (left + right) // 2)
        first += columns
    return torch.tensor(cell).flatten(), torch.tensor(centre)


def pool_blocks(x: torch.Tensor, grid: tuple[int, int], cells: tuple[int, int]) -> torch.Tensor:
    """The mean of `x` `[height * width, channels]` over the cells of a coarser grid, `[cells, channels]`.

    Where the grid does not divide evenly, cells cover what adaptive average pooling covers: neighbours may share a row.

    >>> pool_blocks(torch.arange(16.0)[:, None], (4, 4), (2, 2))[:, 0].tolist()
    [2.5, 4.5, 10.5, 12.5]
    """
    image = x.float().T.reshape(1, x.shape[1], *grid)
    return torch.nn.functional.adaptive_avg_pool2d(image, cells)[0].flatten(1).T.to(x.dtype)
