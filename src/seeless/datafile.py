"""Files of records as people have them: a JSON list, one record a line, a single one, or a list inside an object."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seeless.errors import SeelessError, brief, system_reason
from seeless.jsonl import BLANK, NoJSON, decode, decode_at

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
SCALAR = re.compile(r"[^,\]}\s]*")


class UnreadableFile(SeelessError):
    """A file that cannot be read, or holds no records."""

    exit_code = 2


def read_records(file: Path, mark: str) -> Iterator[tuple[str, Any]]:
    """Where every record stands ("record 7", "line 7", from one on), and what it is; `NoJSON` for one that is none.

    The file is UTF-8, or UTF-16 or UTF-32 if it begins as those do, with a byte-order mark or without. Lines end at
    "\\n" alone.

    Args:
        mark: a key of every record, to tell a single record from an object with a list of records in it.

    Raises:
        UnreadableFile: the file cannot be read, or is none of these kinds.
    """
    text = _text(file)
    start = len(text) - len(text.lstrip(BLANK))
    if text.startswith("[", start):
        yield from ((f"record {number}", value) for number, value in _items(file, text, start + 1))
    elif text.startswith("{", start) and (single := _single(file, text, start, mark)) is not None:
        yield from single
    else:
        yield from _lines(file, text)


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UnreadableFile(f"cannot read {brief(file)}: {system_reason(error)}") from error
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"cannot read {brief(file)}: it begins as {encoding}, but {error.reason}") from error


def _items(file: Path, text: str, at: int, inside: bool = False) -> Iterator[tuple[int, Any]]:
    """The members of a list, from behind its bracket; a list that is not `inside` an object ends the file."""
    number, at = 0, _after_blank(text, at)
    if text.startswith("]", at):
        return
    while True:
        number += 1
        value, at = _item(file, text, at, number)
        yield number, value
        at = _after_blank(text, at)
        if not text.startswith((",", "]"), at):
            raise UnreadableFile(
                f"{brief(file)} is no JSON list: behind record {number}{_line(text, at)} there is no , or ]"
            )
        if text[at] == "]":
            break
        at = _after_blank(text, at + 1)
    if not inside and (at := _after_blank(text, at + 1)) < len(text):
        raise UnreadableFile(f"{brief(file)} is no JSON list: something follows its end{_line(text, at)}")


def _item(file: Path, text: str, at: int, number: int) -> tuple[Any, int]:
    """One member and where it ends, even if its value is none that JSON has."""
    try:
        return decode_at(text, at)
    except NoJSON as error:
        end = None if isinstance(error.__cause__, json.JSONDecodeError) else _end(text, at)
        if end is None:
            place = _line(text, getattr(error.__cause__, "pos", at))
            raise UnreadableFile(f"{brief(file)} is no JSON list: record {number}{place}: {error}") from error
        return error, end


def _single(file: Path, text: str, start: int, mark: str) -> Iterable[tuple[str, Any]] | None:
    """The records of a file that is one object; None if it is none, or the first of several lines."""
    try:
        value, end = decode_at(text, start)
    except NoJSON as error:
        odd = None if isinstance(error.__cause__, json.JSONDecodeError) else _end(text, start)
        if odd is None or _after_blank(text, odd) < len(text):
            return None
        held = [(key, at) for key, at in _lists(text, start) if key != f'"{mark}"']
        if len(held) == 1:
            return (
                (f"record {number} of {held[0][0]}", v) for number, v in _items(file, text, held[0][1], inside=True)
            )
        return [(_where(text, start, odd), error)]
    if _after_blank(text, end) < len(text):
        if "\n" in text[start:end]:
            raise UnreadableFile(
                f"{brief(file)} is neither a JSON list nor JSON lines: its first object goes over several lines, and "
                f"something follows it{_line(text, end)}; put all records into one list, or each on a line of its own"
            )
        return None
    if mark in value:
        return [(_where(text, start, end), value)]
    lists = [key for key, held in value.items() if isinstance(held, list) and any(isinstance(e, dict) for e in held)]
    if len(lists) != 1:
        found = f"several lists: {', '.join(map(brief, lists[:5]))}" if lists else "no list of records"
        raise UnreadableFile(f"{brief(file)} is one JSON object, not a list of records; it has no {mark!r} and {found}")
    return [(f"record {number} of {brief(lists[0], 40)}", held) for number, held in enumerate(value[lists[0]], 1)]


def _lists(text: str, start: int) -> Iterator[tuple[str, int]]:
    """Key, in its quotes, and inside of every list that an object holds."""
    depth, latest = 0, ""
    for token in TOKEN.finditer(text, start):
        if token[0].startswith('"'):
            latest = token[0] if depth == 1 else latest
            continue
        depth += 1 if token[0] in "[{" else -1
        if depth == 2 and token[0] == "[":
            yield latest, token.end()


def _where(text: str, start: int, end: int) -> str:
    return "record 1" if "\n" in text[start:end] else f"line {text.count(chr(10), 0, start) + 1}"


def _lines(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    whole, first = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip(BLANK):
            continue
        try:
            value = decode(line)
            whole += 1
        except NoJSON as error:
            value, first = error, first or f"line {number}: {error}"
        yield f"line {number}", value
    if first and not whole:
        raise UnreadableFile(f"{brief(file)} is neither a JSON list nor JSON lines; {first}")


def _after_blank(text: str, at: int) -> int:
    while text[at : at + 1] in tuple(BLANK):
        at += 1
    return at


def _end(text: str, at: int) -> int | None:
    """Where a value ends, by its brackets alone; None if they do not close."""
    if text[at] not in "[{":
        return SCALAR.match(text, at).end()  # type: ignore[union-attr]
    depth = 0
    for token in TOKEN.finditer(text, at):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None


def _line(text: str, at: int) -> str:
    return f" (line {text.count(chr(10), 0, at) + 1})"
