"""The embedded model of the papers' shape: a small real LLaVA with 576 visual tokens, and the drawings it reads."""

from typing import TYPE_CHECKING

from seeless.lazy import lazily
from seeless.reader.model import load_reader, reader_path

if TYPE_CHECKING:
    from seeless.reader.drawing import KINDS, Drawing, Question
    from seeless.reader.drawings import draw_drawing
else:  # what needs Pillow
    _HOMES = {"seeless.reader.drawing": ("KINDS", "Drawing", "Question"), "seeless.reader.drawings": ("draw_drawing",)}
    __getattr__, __dir__ = lazily(__name__, _HOMES)

__all__ = ["KINDS", "Drawing", "Question", "draw_drawing", "load_reader", "reader_path"]
