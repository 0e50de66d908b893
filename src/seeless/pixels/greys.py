"""Greys with more than 8 bits."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

DEPTHS = (8, 10, 12, 14, 16)
WHITE_IS_ZERO, BITS, NUMBERS = 262, 258, 339  # tags of TIFF: photometric interpretation, bits, sample format


def is_deep(image: "Image") -> bool:
    """Whether the picture is a grey one of 16 or 32 bits, or of floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def grey_values(image: "Image") -> Any:
    """The values of a deep grey picture, `[height, width]` as they are in the file."""
    import numpy

    values = numpy.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(BITS) == (32,) and tags.get(NUMBERS, (1,)) == (1,):
        values = values.view(numpy.uint32)  # Pillow reads them as signed
    return values


def grey_to_8_bits(image: "Image", values: Any) -> "Image":
    """A deep grey picture in mode "L", scaled by its range.

    Integers from 0 on are taken by the depth they use: 0 is black, and white is the largest number of 8, 10, 12, 14 or
    16 bits, whichever holds the brightest value. Floats from 0 to 1 are taken as they are. Where the brightest value is
    not in the upper three quarters of such a range, and of all others, the smallest value becomes black, the largest
    white.

    Args:
        values: from `grey_values`.

    Raises:
        ValueError: some values are no numbers.
    """
    import numpy
    from PIL import Image

    if lost := int((~numpy.isfinite(values)).sum()):
        raise ValueError(
            f"{lost:,} of its {values.size:,} values are not finite (NaN or infinite); put numbers in their place"
        )
    low, high = values.min().item(), values.max().item()
    start, end = _range(low, high, values.dtype.kind == "f")
    scaled = values.astype(numpy.float64)
    scaled -= start
    scaled *= 255 / (end - start)
    if getattr(image, "tag_v2", {}).get(WHITE_IS_ZERO) == 0:  # Pillow turns 8-bit pictures over, but not these
        numpy.subtract(255, scaled, out=scaled)
    return Image.fromarray(numpy.rint(scaled, out=scaled).astype(numpy.uint8))


def _range(low: float, high: float, floats: bool) -> tuple[float, float]:
    """What becomes black and what becomes white.

    >>> _range(0, 65535, False), _range(7, 4000, False), _range(-5, 90000, False), _range(3, 3, False)
    ((0, 65535), (0, 4095), (-5, 90000), (3, 4))
    >>> _range(0.2, 0.8, True), _range(0.0, 3000.0, True), _range(0.0, 1e-3, True)
    ((0, 1), (0.0, 3000.0), (0.0, 0.001))
    """
    for white in (1,) if floats else tuple(2**bits - 1 for bits in DEPTHS):
        if low >= 0 and white / 4 < high <= white:
            return 0, white
    return (low, high) if low < high else (low, low + 1)
