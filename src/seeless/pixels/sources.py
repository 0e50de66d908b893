"""Where pictures come from: files, addresses, and text that holds them."""

import base64
import io
import os
from typing import BinaryIO
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from seeless.pixels.signatures import picture_kind

WEB, LOCAL, DATA = ("http://", "https://"), "file:", "data:"
SHORTEST_BASE64 = 64


def open_source(source: str | os.PathLike[str] | bytes, allow_private: bool) -> BinaryIO:
    """The bytes of a picture, from their beginning on.

    Raises:
        OSError, ValueError, HTTPException: there are none to be had.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    path = local_file(source)
    if path is not None:
        return _open(path)
    text = str(source).strip()
    if text.lower().startswith(WEB):
        from seeless.pixels.fetch import fetch

        return io.BytesIO(fetch(text, allow_private))
    return io.BytesIO(_data(text) if text[: len(DATA)].lower() == DATA else _base64(text))


def local_file(source: str | os.PathLike[str]) -> str | None:
    """The path that a source means, itself or as a `file://` address; None for web addresses, data: URIs and base64.

    Raises:
        ValueError: a `file://` address of another machine, or an address of a kind that is not known.
    """
    if not isinstance(source, str):
        return os.fspath(source)
    if os.path.isfile(source):
        return source
    start = source[:32].lstrip().lower()
    if start.startswith(LOCAL):
        return _path_of(source.strip())
    if start.startswith(WEB) or is_inline(source):
        return None
    if "://" in start:
        raise ValueError(
            f"there is no way to fetch {start[: start.index('://')]}:// addresses; possible are a path, file://, "
            "http://, https:// and data:"
        )
    return source


def is_inline(source: str) -> bool:
    """Whether a text holds a picture itself, as a data: URI or as plain base64."""
    if source[:32].lstrip().lower().startswith(DATA):
        return True
    if len(source) < SHORTEST_BASE64 or os.path.isfile(source):
        return False
    try:
        return picture_kind(_base64(source)) is not None
    except ValueError:
        return False


def _open(path: str) -> BinaryIO:
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is a folder" if os.path.isdir(path) else "it is no file but a device or a pipe")
    return open(path, "rb")


def _path_of(address: str) -> str:
    """The path of a `file:` address."""
    parts = urlsplit(address)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(
            f"file:// addresses hold a whole path, as in file:///{parts.netloc}{parts.path}; {parts.netloc!r} would be "
            "another machine"
        )
    rest = address[len(LOCAL) :]
    rest = rest[2 + len(parts.netloc) :] if rest.startswith("//") else rest  # "?" and "#" may stand in a path
    return url2pathname(rest) if os.name == "nt" else unquote(rest)


def _data(uri: str) -> bytes:
    head, comma, content = uri.partition(",")
    if not comma:
        raise ValueError("a data: URI has a comma before its content, and this has none")
    return _base64(unquote(content)) if head.lower().rstrip().endswith(";base64") else unquote_to_bytes(content)


def _base64(text: str) -> bytes:
    """Bytes of base64 in either alphabet, in lines or in one, with or without padding.

    Raises:
        ValueError: it is none.
    """
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
