"""Load a picture."""

import os
from typing import TYPE_CHECKING, BinaryIO

from seeless.errors import brief, system_reason
from seeless.pixels.errors import UnreadableImage
from seeless.pixels.kinds import check_kind
from seeless.pixels.rgb import convert
from seeless.pixels.signatures import HEAD, picture_kind
from seeless.pixels.sources import open_source
from seeless.pixels.whole import whole_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 178_956_970  # where Pillow stops, too, unless it is told otherwise
PREVIEW = 1  # a bit of TIFF's subfile type
SUBFILE_TYPE = 254


def load_image(source: str | os.PathLike[str] | bytes, *, allow_private: bool = False) -> "Image":
    """A picture as a model sees it: upright, 8-bit RGB, transparent parts white, of several frames the first.

    Args:
        source: a path; a `file://`, `http://` or `https://` address; a `data:` URI or plain base64; a file's bytes.
        allow_private: whether web addresses may lead to this machine or into its own network, directly or by
            redirects. Leave it off wherever others choose the source.

    Raises:
        UnreadableImage: it is missing, cannot be fetched, is no picture, breaks off, or has more than 179 million
            pixels.
    """
    try:
        with open_source(source, allow_private) as file, whole_pictures():
            return _decode(file)
    except Exception as error:  # Pillow raises all kinds, depending on the format
        raise UnreadableImage(f"cannot read the picture {brief(source)}: {system_reason(error)}") from error


def _decode(file: BinaryIO) -> "Image":
    from PIL import Image, UnidentifiedImageError

    head = file.read(HEAD)
    file.seek(0)
    check_kind(head)
    try:
        image = Image.open(file)
    except (OSError, SyntaxError) as error:
        unknown = isinstance(error, UnidentifiedImageError)
        why = "Pillow cannot identify it as a picture" if unknown else system_reason(error)
        kind = picture_kind(head)
        hint = f"; it begins as {kind} does, and is damaged or breaks off" if kind else ""
        raise ValueError(why + hint) from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}; scale it down")
        if getattr(image, "tag_v2", {}).get(SUBFILE_TYPE, 0) & PREVIEW:
            raise ValueError("its first picture is a preview of another (a camera's raw file?); save it as PNG or JPEG")
        return convert(image)
