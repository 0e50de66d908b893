"""Write src/seeless/reader/glyphs.npz: capital letters and digits in four fonts that come with matplotlib.

DejaVu Sans, plain and bold, DejaVu Serif and STIX bold; each glyph 32 pixels high, 26 of which are a
capital letter.
"""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "STIXGeneralBol",
)
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
HEIGHT, CAPITAL, WIDTH = 32, 26, 40


def draw(font: ImageFont.FreeTypeFont, glyph: str) -> tuple[np.ndarray, int]:
    """Ink `[32, 40]` of a glyph, from its left edge on, and how wide it is."""
    left, _, right, _ = font.getbbox(glyph, anchor="ls")
    canvas = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(canvas).text((-left, CAPITAL), glyph, fill=255, font=font, anchor="ls")
    return np.asarray(canvas), min(int(right - left), WIDTH)


def sized(file: Path) -> ImageFont.FreeTypeFont:
    """The font in the size in which an H is 26 pixels high."""
    _, top, _, bottom = ImageFont.truetype(file, 200).getbbox("H", anchor="ls")
    return ImageFont.truetype(file, round(200 * CAPITAL / (bottom - top)))


if __name__ == "__main__":
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    drawn = [[draw(font, glyph) for glyph in GLYPHS] for font in (sized(folder / f"{name}.ttf") for name in FONTS)]
    target = Path(__file__).parents[1] / "src/seeless/reader/glyphs.npz"
    np.savez_compressed(
        target,
        ink=np.stack([np.stack([ink for ink, _ in row]) for row in drawn]),
        width=np.array([[width for _, width in row] for row in drawn], dtype=np.uint8),
    )
    print(f"{target.name}: {len(FONTS)} fonts, {len(GLYPHS)} glyphs, {target.stat().st_size} bytes")
