"""How a video's frames are to be turned, by its display matrix."""

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

# Signs of the matrix's entries a, b, c, d: a pixel at (x, y) goes to (a x + c y, b x + d y).
TURNS: dict[tuple[int, ...], str | None] = {
    (0, 0, 0, 0): None,  # written by programs that know of no turn
    (1, 0, 0, 1): None,
    (0, 1, -1, 0): "ROTATE_270",  # Pillow turns against the clock
    (-1, 0, 0, -1): "ROTATE_180",
    (0, -1, 1, 0): "ROTATE_90",
    (-1, 0, 0, 1): "FLIP_LEFT_RIGHT",
    (1, 0, 0, -1): "FLIP_TOP_BOTTOM",
    (0, 1, 1, 0): "TRANSPOSE",
    (0, -1, -1, 0): "TRANSVERSE",
}


def turn_of(frame: Any) -> str | None:
    """How a frame of PyAV is to be turned, as a name of `PIL.Image.Transpose`; None: not at all.

    Raises:
        ValueError: by another angle than a multiple of 90 degrees.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    largest = max(map(abs, (a, b, c, d)))
    signs = tuple(round(each / largest) if largest else 0 for each in (a, b, c, d))
    if signs not in TURNS:
        raise ValueError("it is to be shown at an angle that is no multiple of 90 degrees; write it anew, upright")
    return TURNS[signs]


def turned(image: "Image", turn: str | None) -> "Image":
    """The image, turned."""
    from PIL import Image

    return image if turn is None else image.transpose(Image.Transpose[turn])
