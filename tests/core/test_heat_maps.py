"""Heat maps: every patch has the colour of its place in the ranking, counted by hand."""

import pytest
import torch
from PIL import Image

import seeless as sl
from seeless.overlay import COLOUR, DARK, LOW_TO_HIGH
from tiny_models import VARIANTS, make_inputs

LLAVA = VARIANTS[1]
SIDE, CELL = 4, 8  # of the model's 16 tokens, in which the picture is drawn


class Given(sl.EntryStrategy):
    """Scores as they are given, row by row of the batch."""

    tower = ()
    scores: list[float] = (0.0,) * 16

    def score(self, ctx):
        return torch.tensor(self.scores, device=ctx.index.device)[ctx.index]


def drawn(report, **which):
    noise = torch.randint(
        0, 256, (SIDE * CELL,) * 2 + (3,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    heat = report.heat_map(Image.fromarray(noise.numpy()), **which)
    assert heat.size == (SIDE * CELL,) * 2 and heat.mode == "RGB"
    return torch.frombuffer(bytearray(heat.tobytes()), dtype=torch.uint8).view(*noise.shape), noise


def patch(pixels, place):
    row, column = divmod(place, SIDE)
    return pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL].float()


def rank(scores, own):
    """The mean place of a score among all, 0 the lowest and 1 the highest."""
    below, equal = sum(s < own for s in scores), sum(s == own for s in scores)
    return (below + (equal - 1) / 2) / (len(scores) - 1)


def colour(share):
    steps = share * (len(LOW_TO_HIGH) - 1)
    low, high = LOW_TO_HIGH[int(steps)], LOW_TO_HIGH[min(int(steps) + 1, len(LOW_TO_HIGH) - 1)]
    return torch.tensor([a + (steps - int(steps)) * (b - a) for a, b in zip(low, high, strict=True)])


def run(tiny, strategy, rows):
    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, strategy) as handle, torch.no_grad():
        model(**make_inputs(model, LLAVA, rows))
    return handle.report


def test_every_patch_has_the_colour_of_its_rank(tiny):
    scores = [3.0, 1.0, 1.0, -2.0, 1e30, 7.0, 7.5, 0.0, 4.0, 5.0, 6.0, 1.0, 2.0, 2.5, 9.0, 8.0]
    pixels, noise = drawn(run(tiny, Given(keep=4, scores=scores), [[3, "image:0", 4]]))
    for place, score in enumerate(scores):
        expected = COLOUR * colour(rank(scores, score)) + (1 - COLOUR) * patch(noise, place)
        assert (patch(pixels, place) - expected).abs().max() <= 2, place


def test_a_later_stage_ranks_what_is_left_and_the_rest_is_dark(tiny):
    report = run(tiny, [sl.FasterVLM(keep=9), sl.FastV(keep=4)], [[3, "image:1", 4], [3, "image:0", 4, "image:2", 6]])
    for row, picture in ((0, 0), (1, 0), (1, 1)):
        there, scores = report.stages[0].kept[row].tolist(), report.stages[1].scores[row].tolist()
        pixels, noise = drawn(report, row=row, picture=picture)
        for place in range(16):
            if (token := 16 * picture + place) in there:
                share = rank(scores, scores[there.index(token)])
                expected = COLOUR * colour(share) + (1 - COLOUR) * patch(noise, place)
            else:
                expected = DARK * patch(noise, place)
            assert (patch(pixels, place) - expected).abs().max() <= 2, (row, picture, place)


def test_methods_without_scores_are_refused(tiny):
    for strategy in (sl.Uniform(keep=4), sl.FastV(keep=1.0)):
        with pytest.raises(sl.InputError, match=r"gives its tokens no scores|drops nothing"):
            drawn(run(tiny, strategy, [[3, "image:0", 4]]))
