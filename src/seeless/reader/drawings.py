"""Drawings of all kinds, by seed."""

import numpy as np

from seeless.reader.charts import draw_bars, draw_line
from seeless.reader.drawing import Drawing
from seeless.reader.tables import draw_table
from seeless.reader.things import draw_things

DRAWERS = (draw_things, draw_bars, draw_line, draw_table)
SHARES = (0.6, 0.14, 0.1, 0.16)


def draw_drawing(seed: int, held_out: bool = True) -> Drawing:
    """One drawing with its questions; the same seed always gives the same drawing.

    Handwritten digits are of the held-out side unless told.

    >>> drawing = draw_drawing(seed=1)
    >>> drawing.pixels.shape, drawing.owner.shape
    ((192, 192, 3), (576,))
    """
    return draw_any(np.random.default_rng((seed, held_out)), held_out)


def draw_any(rng: np.random.Generator, held_out: bool) -> Drawing:
    """A drawing of any kind."""
    return DRAWERS[rng.choice(len(DRAWERS), p=SHARES)](rng, held_out)
