"""Which cells of a grid are what their neighbours predict."""

import torch


def predictable(cells: torch.Tensor, tolerance: float, anchored: bool) -> torch.Tensor:
    """Cells that are like their prediction, the neighbour to the left or above (arXiv 2604.00886).

    With A to the left, B above and C above and to the left of a cell, the prediction is A in the first row, B in the
    first column, and elsewhere B where C is like A and not like B, else A. Cells are alike where no number of theirs
    differs by more than `tolerance`. The first cell is never predictable.

    Args:
        cells: `[units, height, width, dim]`.
        anchored: A, B and C are what can be reconstructed: the numbers of cells that are not predictable, and of
            the others their predictions. Else they are the neighbours' own numbers.

    Returns:
        `[units, height, width]` bool.

    >>> grid = torch.tensor([[[0.0, 0, 5, 5], [0, 0, 5, 5], [7, 7, 7, 7], [7, 7, 7, 8]]])[..., None]
    >>> (~predictable(grid, 0, False)).flatten().nonzero()[:, 0].tolist()
    [0, 2, 8, 15]
    """
    height, width = cells.shape[1:3]
    known, found = cells.flatten(1, 2).clone(), torch.zeros_like(cells[..., 0], dtype=torch.bool).flatten(1)
    if not anchored:
        _judge(cells, torch.arange(1, height * width), tolerance, known, found)
    for diagonal in range(1, height + width - 1) if anchored else ():  # it needs the two diagonals before it
        rows = torch.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        _judge(cells, rows * width + diagonal - rows, tolerance, known, found)
    return found.view_as(cells[..., 0])


def _judge(
    cells: torch.Tensor, place: torch.Tensor, tolerance: float, known: torch.Tensor, found: torch.Tensor
) -> None:
    """Judge the cells at some places, from `known` numbers `[units, cells, dim]`, which become their reconstruction."""

    def alike(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((x - y).abs() <= tolerance).all(-1, keepdim=True)

    place, width = place.to(cells.device), cells.shape[2]
    own = cells.flatten(1, 2)[:, place]
    left, above, corner = (known[:, (place - step).clamp(min=0)] for step in (1, width, width + 1))
    first_row, first_column = (place < width)[:, None], (place % width == 0)[:, None]
    by_above = first_column | (~first_row & alike(corner, left) & ~alike(corner, above))
    prediction = torch.where(by_above, above, left)
    predicted = alike(own, prediction)
    known[:, place] = torch.where(predicted, prediction, own)
    found[:, place] = predicted[..., 0]
