"""What can go wrong with a picture or a video, and how messages name it."""

from typing import Any

from seeless.errors import InputError

LONGEST_SOURCE, LONGEST_REASON = 160, 600  # characters


class UnreadableImage(InputError):
    """A picture that is missing, cannot be fetched or cannot be read; the message names it and says why."""


class UnreadableVideo(InputError):
    """A video that is missing, damaged or cannot be read; the message names it and says why."""


def shorten(source: Any, longest: int = LONGEST_SOURCE) -> str:
    """A source as messages name it: in one line, a long one (a data: URI, say) by its beginning and its length.

    >>> shorten("photo.jpg"), shorten(b"abc")
    ('photo.jpg', '3 bytes')
    >>> shorten("data:image/png;base64," + "A" * 28_000)[-38:]
    'AAAAAAAAAAAA... (28,022 characters)'
    """
    if isinstance(source, bytes):
        return f"{len(source):,} bytes"
    text = str(source)
    start = " ".join(text[:longest].encode(errors="backslashreplace").decode().splitlines())
    return start if len(text) <= longest else f"{start[: longest // 2]}... ({len(text):,} characters)"


def reason(error: BaseException) -> str:
    """Why something failed, in one short line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    if isinstance(error, KeyError) or not lines:
        return shorten(f"{type(error).__name__} {error}".strip(), LONGEST_REASON)
    return shorten(lines[0].strip(), LONGEST_REASON)
