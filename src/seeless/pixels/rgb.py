"""From any Pillow image to upright 8-bit RGB."""

from typing import TYPE_CHECKING, Any

from seeless.errors import brief, system_reason
from seeless.pixels.errors import UnreadableImage
from seeless.pixels.greys import grey_to_8_bits, grey_values, is_deep
from seeless.pixels.whole import whole_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = 0x0112  # a tag of EXIF
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def to_rgb(image: "Image") -> "Image":
    """A new RGB image of the same pixels: upright by its EXIF data, greys of more than 8 bits scaled, on white.

    Of several frames, the one the image stands at. The result carries no EXIF data that could turn it again.

    Raises:
        UnreadableImage: the pixels cannot be read, or there are none.
    """
    try:
        return convert(image)
    except Exception as error:  # Pillow raises all kinds, depending on the format
        name = getattr(image, "filename", "") or f"a Pillow image, {image.mode} {image.width}x{image.height}"
        raise UnreadableImage(f"cannot read the picture {brief(name)}: {system_reason(error)}") from error


def convert(image: "Image") -> "Image":
    """`to_rgb`, with whatever Pillow raises."""
    from PIL import Image as pil

    if min(image.size) < 1:
        raise ValueError(f"it has no pixels ({image.width}x{image.height})")
    with whole_pictures():
        key = _key_colour(image)
        image.load()
    upright = _on_white(image, key)
    turn = TURNS.get(_orientation(image))
    upright = upright if turn is None else upright.transpose(pil.Transpose[turn])
    upright.info = {}
    return upright


def _orientation(image: "Image") -> Any:
    """What the EXIF data, or XMP in its place, say about the turn; 1 where they cannot be read."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken block says nothing; its readers raise all kinds
        return 1


def _key_colour(image: "Image") -> Any:
    """The colour that is transparent, as the loaded pixels have it; None without one.

    Files give it in their own depth, and Pillow leaves it in that when it brings the pixels to 8 bits.
    """
    key = image.info.get("transparency")
    tile = getattr(image, "tile", None) or [(None,) * 4]
    depth = {"L;2": 85, "L;4": 17}.get(str(tile[0][3]), 1)
    if isinstance(key, int):
        return key * depth
    if isinstance(key, tuple) and (tile[0][3] == "RGB;16B" or max(key) > 255):
        return tuple(value >> 8 for value in key)
    return key


def _on_white(image: "Image", key: Any) -> "Image":
    from PIL import Image as pil

    if is_deep(image):
        values = grey_values(image)
        image = grey_to_8_bits(image, values)
        if key is not None:
            image.putalpha(pil.fromarray(values != key).convert("L"))
    elif key is not None:
        image = image.copy()
        image.info["transparency"] = key
    if not _has_alpha(image):
        return image.convert("RGB")
    straight = image.convert("LA") if image.mode == "La" else image
    white = pil.new("RGBA", image.size, "white")
    return pil.alpha_composite(white, straight.convert("RGBA")).convert("RGB")


def _has_alpha(image: "Image") -> bool:
    palette = image.palette.mode if image.mode == "P" and image.palette is not None else ""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info or palette.endswith("A")
