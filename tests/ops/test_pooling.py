"""`pooling_cells` on every grid and count up to 12 x 12."""

import numpy as np
import pytest
import torch

from seeless.ops.pooling import pooling_cells
from seeless.strategies.pool import _cells


def bounds(grid, count):
    """`[count, 4]` top, bottom, left, right of the smallest rectangle round each cell, bottom and right excluded."""
    y, x = np.indices(grid.shape)
    cell = grid.ravel()
    box = np.full((count, 4), [99, 0, 99, 0])
    np.minimum.at(box[:, 0], cell, y.ravel())
    np.maximum.at(box[:, 1], cell, y.ravel() + 1)
    np.minimum.at(box[:, 2], cell, x.ravel())
    np.maximum.at(box[:, 3], cell, x.ravel() + 1)
    return box


@pytest.mark.parametrize("height", range(1, 13))
def test_every_count_of_every_grid(height):
    for width in range(1, 13):
        for count in range(1, height * width + 1):
            cell, centre = (tensor.numpy() for tensor in pooling_cells(height, width, count))
            where = (height, width, count)
            size = np.bincount(cell, minlength=count)
            assert len(cell) == height * width and len(size) == count and size.min() >= 1, where
            top, bottom, left, right = bounds(cell.reshape(height, width), count).T
            assert ((bottom - top) * (right - left) == size).all(), (where, "a cell is no rectangle")

            assert len(centre) == count and (np.diff(centre) > 0).all(), (where, "centres must ascend")
            assert (cell[centre] == np.arange(count)).all(), (where, "a centre lies outside its cell")
            assert (abs(2 * (centre // width) + 1 - (top + bottom)) <= 1).all(), (where, "not the middle row")
            assert (abs(2 * (centre % width) + 1 - (left + right)) <= 1).all(), (where, "not the middle column")

            assert (np.diff(top) >= 0).all(), (where, "cells are numbered in raster order")
            heights = {t: b - t for t, b in zip(top, bottom, strict=True)}
            widths = {t: (right - left)[top == t] for t in heights}
            columns = [len(w) for w in widths.values()]
            assert max(heights.values()) - min(heights.values()) <= 1, (where, "bands differ by more than a row")
            assert max(columns) - min(columns) <= 1, (where, "bands differ by more than a cell")
            assert all(w.max() - w.min() <= 1 for w in widths.values()), (where, "cells of a band differ in width")


@pytest.mark.parametrize(("side", "cells"), [(24, 12), (24, 8), (24, 6), (16, 4), (12, 3), (7, 7)])
def test_square_counts_of_square_grids_are_squares(side, cells):
    cell, _ = pooling_cells(side, side, cells * cells)
    step = side // cells
    want = [(y // step) * cells + x // step for y in range(side) for x in range(side)]
    assert cell.tolist() == want


def test_one_cell_is_everything_and_all_cells_are_the_grid():
    cell, centre = pooling_cells(3, 5, 1)
    assert cell.tolist() == [0] * 15 and centre.tolist() == [7]
    cell, centre = pooling_cells(3, 5, 15)
    assert cell.tolist() == centre.tolist() == list(range(15))


def test_cells_found_in_inference_serve_in_training():
    _cells.cache_clear()
    with torch.inference_mode(), torch.device("meta"):
        _cells(3, 5, 4)
    x = torch.ones(15, requires_grad=True)
    (x * _cells(3, 5, 4)[2]).sum().backward()
    assert abs(x.grad.sum() - 4) < 1e-6  # each cell's weights are one mean
