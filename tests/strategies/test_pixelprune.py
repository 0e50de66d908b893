"""PixelPrune: which tokens pixels before them predict, and what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_patches import alike, plain_pixelprune

import seeless as sl
from fake_context import fake_patches, kept
from seeless.ops.prediction import predictable

GRID = [[0, 0, 5, 5], [0, 0, 5, 5], [7, 7, 7, 7], [7, 7, 7, 8]]


def stays(values, tolerance, anchored):
    cells = torch.tensor(values, dtype=torch.float64)[None, ..., None]
    return (~predictable(cells, tolerance, anchored)).flatten().nonzero()[:, 0].tolist()


def test_toy_examples():
    for anchored in (False, True):
        assert stays(GRID, 0, anchored) == [0, 2, 8, 15]
    assert stays([[0, 1, 2, 3, 4, 5]], 1, True) == [0, 2, 4]
    assert stays([[0, 1, 2, 3, 4, 5]], 1, False) == [0]


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 3), st.data())
@settings(max_examples=40)
def test_it_is_that_of_lists(units, height, width, dim, tolerance, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    cells = torch.randint(0, 5, (units, height, width, dim), generator=generator).double()
    for anchored in (False, True):
        found = ~predictable(cells, tolerance, anchored)
        for unit in range(units):
            tokens = cells[unit].flatten(0, 1).tolist()
            want = plain_pixelprune(tokens, height, width, tolerance, anchored)
            assert found[unit].flatten().nonzero()[:, 0].tolist() == want
    assert torch.equal(predictable(cells, 0, True), predictable(cells, 0, False))


def test_pixels_are_those_of_the_first_frame_in_the_range_from_black_to_white():
    """Two channels of which the processor divided one by 0.5 and the other by 0.25; one row of three tokens."""
    pixels = torch.zeros(1, 3, 1, 2, 2, 1, 1)
    pixels[0, :, 0, 0, 0] = torch.tensor([0.0, 0.1, 0.5])[:, None, None] / 0.5
    pixels[0, :, 0, 1, 0] = torch.tensor([0.0, 0.2, 0.2])[:, None, None] / 0.25
    pixels[0, :, 0, :, 1] = torch.randn(3, 2, 1, 1)  # another frame
    context = fake_patches(3, 1, (1, 3), pixels=pixels)
    for tolerance, want in ((0.0, [0, 1, 2]), (0.15, [0, 1, 2]), (0.25, [0, 2]), (0.45, [0, 2]), (0.55, [0])):
        assert kept(sl.PixelPrune(tolerance=tolerance, deviation=[0.5, 0.25]).leave(context)) == [want]
    with pytest.raises(sl.BudgetError, match="3 numbers, but pictures 2 channels"):
        sl.PixelPrune(deviation=[0.5, 0.5, 0.5]).leave(context)


def test_anchored_tokens_are_within_the_tolerance_of_what_is_known():
    values = torch.rand(1, 7, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, known = values[0].flatten(0, 1).tolist(), {}
    left = set(plain_pixelprune(tokens, 7, 9, 0.4, True))
    assert left == set((~predictable(values, 0.4, True)).flatten().nonzero()[:, 0].tolist()) and 5 < len(left) < 60
    for i in range(63):  # reconstruct from what stays alone, as a decoder could
        row, column = divmod(i, 9)
        if i in left:
            known[i] = tokens[i]
        elif row == 0 or (
            column and not (alike(known[i - 10], known[i - 1], 0.4) and not alike(known[i - 10], known[i - 9], 0.4))
        ):
            known[i] = known[i - 1]
        else:
            known[i] = known[i - 9]
        assert alike(known[i], tokens[i], 0.4)


def test_videos_are_left_alone():
    decision = sl.PixelPrune().leave(fake_patches(4, 2, (2, 2), video=True))
    assert decision.mask.all() and decision.count == 4


@pytest.mark.parametrize(
    "knobs",
    [
        *({"keep": 0.5}, {"average": 0.5}, {"tolerance": -0.1}, {"tolerance": 1.0}, {"tolerance": float("nan")}),
        *({"deviation": 0.0}, {"deviation": []}, {"scope": "row"}, {"threshold": 0.1}),
    ],
)
def test_impossible_fields_are_refused(knobs):
    with pytest.raises(sl.BudgetError):
        sl.PixelPrune(**knobs)
