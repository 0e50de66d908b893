"""What drawings are made of: a dark canvas, glyphs of real fonts, handwritten digits and shapes.

Everything that is painted leaves a mark: words that say what it is. Marks are what the tower is taught to see and
what questions are about.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from seeless.tiny.scenes import COLOURS, digit_pictures

IMAGE_SIZE = 192
PATCH_SIZE = 8
SIDE = IMAGE_SIZE // PATCH_SIZE
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
CAPITAL = 26 / 32  # the part of a glyph's height that a capital letter takes
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
INK = 6  # pixels of a patch's 64 that make it one of a mark

Mark = dict[str, str]


@cache
def _glyphs() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(__file__).with_name("glyphs.npz")) as data:
        return data["ink"], data["width"]


@cache
def _handwritten(held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    pictures, labels = digit_pictures(held_out)
    return (pictures.numpy() * 255).astype(np.uint8), labels.numpy()


@dataclass
class Canvas:
    """A picture in the making.

    Args:
        rng: the only source of randomness.
    """

    rng: np.random.Generator
    marks: list[Mark] = field(default_factory=list)

    def __post_init__(self) -> None:
        ground = tuple(int(v) for v in self.rng.uniform(20, 52, 3))
        self.image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), ground)
        self.owners = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE))

    def mark(self, **words: str) -> int:
        """A new mark; its number, from 1 on."""
        self.marks.append(words)
        return len(self.marks)

    def paint(self, ink: Image.Image, x: float, y: float, colour: str, mark: int = 0) -> None:
        """Paint ink (mode L) with its upper left corner at a place; mark 0 belongs to nothing."""
        place = round(x), round(y)
        self.image.paste(self.shade(colour), place, ink)
        if mark:
            self.owners.paste(mark, place, ink.point(lambda v: 255 if v > 100 else 0))

    def shade(self, colour: str) -> tuple[int, int, int]:
        """A colour, not always quite the same."""
        jitter = self.rng.normal(0, 0.04, 3)
        return tuple(int(np.clip(255 * (v + j), 0, 255)) for v, j in zip(COLOURS[colour], jitter, strict=True))  # type: ignore[return-value]

    def rule(self, points: list[tuple[float, float]], level: int = 110) -> None:
        """A thin grey line, which belongs to nothing."""
        ImageDraw.Draw(self.image).line(points, fill=(level, level, level), width=1)

    def pixels(self) -> np.ndarray:
        """The picture `[192, 192, 3]` in uint8, with noise."""
        noise = self.rng.integers(-10, 11, (IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.int16)
        return np.clip(np.asarray(self.image, dtype=np.int16) + noise, 0, 255).astype(np.uint8)

    def owner(self) -> np.ndarray:
        """For each patch `[576]` the mark whose ink it shows most of; 0 where there is hardly any."""
        patches = np.asarray(self.owners).reshape(SIDE, PATCH_SIZE, SIDE, PATCH_SIZE).transpose(0, 2, 1, 3)
        code = patches.reshape(SIDE**2, -1) + 256 * np.arange(SIDE**2)[:, None]
        counts = np.bincount(code.ravel(), minlength=SIDE**2 * 256).reshape(SIDE**2, 256)[:, 1:]
        best = counts.argmax(1)
        return np.where(counts.max(1) >= INK, best + 1, 0)


def glyph_inks(text: str, height: float, font: int, pitch: int = PATCH_SIZE) -> list[tuple[Image.Image, float]]:
    """The ink of each glyph of a text and where it begins, in pixels from the left.

    Args:
        text: capital letters and digits.
        height: of a capital letter, in pixels.
        pitch: how wide each glyph's place is; wider ones are set narrower.
    """
    inks, widths = _glyphs()
    scale, found = height / 26, []
    for place, letter in enumerate(text):
        i = GLYPHS.index(letter)
        width = int(widths[font, i])
        size = max(1, min(round(width * scale), pitch - 1)), max(1, round(32 * scale))
        ink = Image.fromarray(inks[font, i, :, :width]).resize(size, Image.Resampling.LANCZOS)
        found.append((ink, place * pitch + (pitch - size[0]) / 2))
    return found


def fonts() -> int:
    """How many there are."""
    return len(_glyphs()[0])


def handwritten(digit: int, size: int, held_out: bool, rng: np.random.Generator) -> Image.Image:
    """The ink of a handwritten digit, a little turned, in a square of `size` pixels."""
    pictures, labels = _handwritten(held_out)
    picture = pictures[rng.choice(np.flatnonzero(labels == digit))]
    ink = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
    ink = ink.rotate(float(rng.uniform(-10, 10)), Image.Resampling.BILINEAR)
    return ink.point(lambda v: min(255, int(v * 1.3)))


def shape(name: str, size: int) -> Image.Image:
    """The ink of one of `SHAPES`, in a square of `size` pixels."""
    large, edge = 4 * size, 4 * size - 1
    ink = Image.new("L", (large, large))
    draw = ImageDraw.Draw(ink)
    if name in ("circle", "ring"):
        draw.ellipse((0, 0, edge, edge), fill=255)
        if name == "ring":
            draw.ellipse((large * 0.27, large * 0.27, large * 0.73, large * 0.73), fill=0)
    elif name == "square":
        draw.rectangle((large * 0.06, large * 0.06, large * 0.94, large * 0.94), fill=255)
    elif name == "triangle":
        draw.polygon([(large / 2, 0), (edge, edge), (0, edge)], fill=255)
    elif name == "diamond":
        draw.polygon([(large / 2, 0), (edge, large / 2), (large / 2, edge), (0, large / 2)], fill=255)
    else:
        draw.rectangle((large * 0.35, 0, large * 0.65, edge), fill=255)
        draw.rectangle((0, large * 0.35, edge, large * 0.65), fill=255)
    return ink.resize((size, size), Image.Resampling.BOX)
