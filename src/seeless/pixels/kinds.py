"""Whether a source leads to a picture or to a video, and what cannot be read as either."""

import os

from seeless.pixels.signatures import HEAD, is_video_head, picture_kind
from seeless.pixels.sources import local_file

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".ico"),
    *(".heic", ".heif", ".hif", ".avif", ".avifs", ".jp2", ".j2k", ".jpx", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tga", ".psd", ".qoi", ".dds", ".dng", ".svg", ".svgz", ".pdf", ".eps", ".ps", ".htm", ".html"),
)
WITHOUT_PIXELS = {
    "PostScript": "a PostScript drawing, which has no pixels; save it as PNG",
    "PDF": "a PDF document, which has no pixels; save the page that is meant as PNG",
    "HTML": "a web page, not a picture; give the address of the picture itself",
    "SVG": "an SVG drawing, which has no pixels; save it as PNG",
    "JPEG XL": "a JPEG XL picture, which Pillow cannot read; save it as PNG",
}


def is_video(source: str | os.PathLike[str]) -> bool:
    """Whether a path or `file://` address leads to a video, not to a picture: by content, else by its suffix."""
    path = _path(source)
    if path is None:
        return False
    head = _head(path)
    return is_video_head(head) or (picture_kind(head) is None and not path.lower().endswith(PICTURE_SUFFIXES))


def is_animation(source: str | os.PathLike[str]) -> bool:
    """Whether a path or `file://` address leads to a GIF, WebP or PNG of several frames."""
    from PIL import Image

    path = _path(source)
    if path is None or picture_kind(_head(path)) not in ("GIF", "WebP", "PNG"):
        return False
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # whoever loads it says what is wrong with it
        return False


def check_kind(head: bytes) -> None:
    """Raise `ValueError` for what is no picture, or one that cannot be read with what is installed."""
    kind = picture_kind(head)
    if not head:
        raise ValueError("it is empty")
    if kind in WITHOUT_PIXELS:
        raise ValueError(f"it is {WITHOUT_PIXELS[kind]}")
    if is_video_head(head):
        raise ValueError("it is a video; give it where videos are taken, or one of its frames as a picture")
    if kind == "HEIC" and not _reads_heic():
        raise ValueError('it is a HEIC picture, which needs pillow-heif: pip install "seeless[heif]"')
    if kind == "AVIF" and not _reads_avif():
        raise ValueError("it is an AVIF picture, which needs Pillow 11.3 or newer: pip install --upgrade pillow")


def _path(source: str | os.PathLike[str]) -> str | None:
    try:
        return local_file(source)
    except ValueError:  # whoever opens it says what is wrong with the address
        return None


def _head(path: str) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except (OSError, ValueError):
        return b""


def _reads_heic() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _reads_avif() -> bool:
    from PIL import Image

    Image.init()
    return "AVIF" in Image.OPEN
