"""JSON and lines of JSON: lines end at "\\n" alone, what is none is named in a few words, a line is written whole."""

import json
import os
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

from seeless.errors import brief
from seeless.outputs import writing


class NoJSON(ValueError):
    """Why a text is no JSON value; short, whatever the text was."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise NoJSON(f"the key {brief(next(name for name in names if names.count(name) > 1))} occurs twice")
    return found


def _constant(name: str) -> Any:
    raise NoJSON(f"{name} is no JSON value")


BLANK = " \t\n\r"  # as JSON has it
STRICT = JSONDecoder(object_pairs_hook=_once, parse_constant=_constant)
LENIENT = JSONDecoder(object_pairs_hook=_once)


def decode_at(text: str, start: int = 0, numbers_only: bool = True) -> tuple[Any, int]:
    """The JSON value that starts in a text at `start`, and where it ends.

    Args:
        numbers_only: refuse NaN and Infinity, which Python writes and JSON does not have.

    Raises:
        NoJSON: there is none; or a key occurs twice in an object, a number is too long, brackets nest too deeply.
            A `JSONDecodeError` as its cause says where the text stops being JSON; without one it may go on.
    """
    try:
        return (STRICT if numbers_only else LENIENT).raw_decode(text, start)
    except JSONDecodeError as error:
        raise NoJSON(f"{error.msg} (column {error.colno})") from error
    except RecursionError:
        raise NoJSON("brackets nest too deeply") from None
    except NoJSON:
        raise
    except ValueError as error:  # Python's limit for whole numbers
        raise NoJSON(str(error).partition(";")[0]) from None


def decode(text: str | bytes, numbers_only: bool = True) -> Any:
    """The JSON value of a text, see `decode_at`.

    >>> decode('{"a": 1}')
    {'a': 1}

    Raises:
        NoJSON: it is none, or more than one.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise NoJSON(f"no UTF-8 (byte {error.start + 1})") from error
    start = len(text) - len(text.lstrip(BLANK))
    value, end = decode_at(text, start, numbers_only)
    if text[end:].strip(BLANK):
        raise NoJSON(f"something follows the value (column {end + 1})")
    return value


def read_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """The number and value of every line of a file that seeless wrote, blank ones left out; `NoJSON` for broken ones.

    A file that is not there has no lines. NaN and Infinity are read.

    Raises:
        OSError: the file cannot be read.
    """
    if not os.path.exists(file):
        return
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                yield number, decode(line, numbers_only=False)
            except NoJSON as error:
                yield number, error


def encode(value: Any, indent: int | None = None) -> bytes:
    """A value as JSON in UTF-8; half a surrogate pair, which UTF-8 cannot hold, is written as an escape."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace")


def append_lines(file: Path, *values: Any) -> None:
    """Add a line for each value: whole and on disk when this returns; if it raises, not there at all.

    What an earlier process left of a last line stays a line of its own. Lines that several processes add at once do
    not mix.

    Raises:
        UnwritableFile: the disk is full, say.
    """
    lines = b"".join(encode(value) + b"\n" for value in values)
    with writing(file), file.open("a+b", buffering=0) as out:
        size = out.seek(0, os.SEEK_END)
        if size > 0:
            out.seek(-1, os.SEEK_END)
            lines = lines if out.read(1) == b"\n" else b"\n" + lines
        written = 0
        try:
            while written < len(lines):  # a disk that fills up takes a part first
                written += out.write(lines[written:])
            os.fsync(out.fileno())
        except OSError:
            if written and out.seek(0, os.SEEK_END) == size + written:  # unless another process has added to it
                out.truncate(size)
            raise
