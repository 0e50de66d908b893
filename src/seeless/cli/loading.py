"""Load pictures."""

import io
import urllib.request
from http.client import HTTPException
from typing import Any

from PIL import Image, ImageOps

import seeless as sl
from seeless.cli.errors import UnreadableImage
from seeless.named.errors import one_line

URL_TIMEOUT = 30


def load_image(source: str) -> Image.Image:
    """A picture from a file or an http(s) address, upright and in RGB.

    Raises:
        UnreadableImage: it is missing, cannot be fetched, or is no picture.
    """
    try:
        if source.startswith(("http://", "https://")):
            request = urllib.request.Request(source, headers={"User-Agent": f"seeless/{sl.__version__}"})
            with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as answer:
                data: Any = io.BytesIO(answer.read())
        else:
            data = source
        with Image.open(data) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, HTTPException, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise UnreadableImage(f"cannot read the image {source!r}: {reason}") from error
