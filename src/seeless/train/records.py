"""Read conversations about pictures in LLaVA's format, and say what is wrong with which record."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeless.train.errors import BadRecords

PICTURE = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Record:
    """One conversation.

    Args:
        file, where: the file, and the "line 7" (JSONL) or "record 7" (JSON) of it, counted from one.
        name: its `id`, None without one.
        images: files of its pictures, in the order of the `<image>` marks in its turns.
        turns: role ("system", "user" or "assistant") and text of each turn.
    """

    file: str
    where: str
    name: str | None
    images: tuple[Path, ...]
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be trained on, and why."""

    file: str
    where: str
    name: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.where}{'' if self.name is None else f' ({self.name})'}: {self.reason}"


class _Unusable(Exception):
    """Why one record cannot be used."""


def read_records(
    file: Path, image_folder: Path | None = None, reserved: Collection[str] = ()
) -> tuple[list[Record], list[BadRecord]]:
    """The records of a file, and those that cannot be trained on.

    A record is `{"id", "image": file, list of files or absent, "conversations": [{"from": "human" or "gpt", "value":
    text}]}`, the file a JSON list of records or JSONL with one record a line. Every picture has its `<image>` in a
    human turn; turns alternate, a "system" turn may come first, the last is an answer. Pictures must exist; they are
    opened only when they are needed.

    Args:
        image_folder: what the pictures' paths are relative to; the file's own folder unless told.
        reserved: tokens the model keeps for itself, so that no text may contain them.

    Raises:
        BadRecords: the file cannot be read, is no JSON, or holds no record at all.
    """
    folder = file.resolve().parent if image_folder is None else image_folder
    forbidden = [token for token in reserved if token != PICTURE]
    good: list[Record] = []
    bad: list[BadRecord] = []
    for where, data in _entries(file):
        name = str(data["id"]) if isinstance(data, dict) and "id" in data else None
        try:
            good.append(Record(str(file), where, name, *_contents(data, folder, forbidden)))
        except _Unusable as reason:
            bad.append(BadRecord(str(file), where, name, str(reason)))
    if not good and not bad:
        raise BadRecords(f"{file} holds no records")
    return good, bad


def _entries(file: Path) -> Iterator[tuple[str, Any]]:
    """Where every record stands, and what it is; an exception where it is no JSON."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecords(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadRecords(f"{file} is no JSON list: {error}") from error
        for number, data in enumerate(records, 1):
            yield f"record {number}", data
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                yield f"line {number}", error


def _contents(data: Any, folder: Path, forbidden: list[str]) -> tuple[tuple[Path, ...], tuple[tuple[str, str], ...]]:
    """Pictures and turns of a record."""
    if isinstance(data, json.JSONDecodeError):
        raise _Unusable(f"no JSON: {data.msg} (column {data.colno})")
    if not isinstance(data, dict):
        raise _Unusable("no JSON object")
    if data.get("video"):
        raise _Unusable("has a video; only pictures can be trained on")
    turns = _turns(data.get("conversations"), forbidden)
    images = _images(data.get("image"), folder)
    marks = sum(text.count(PICTURE) for role, text in turns if role == "user")
    if marks < len(images):
        raise _Unusable(f"{_pictures(len(images))}, but {marks or 'no'} {PICTURE} in the questions")
    if marks > len(images):
        raise _Unusable(f"{marks} {PICTURE} in the questions, but {_pictures(len(images))}")
    return images, turns


def _pictures(count: int) -> str:
    return f"{count or 'no'} picture{'' if count == 1 else 's'}"


def _turns(conversation: Any, forbidden: list[str]) -> tuple[tuple[str, str], ...]:
    if not isinstance(conversation, list) or not conversation:
        raise _Unusable("no conversation")
    turns: list[tuple[str, str]] = []
    for number, turn in enumerate(conversation, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise _Unusable(f'turn {number} is no {{"from": ..., "value": text}}')
        if turn.get("from") not in ROLES:
            raise _Unusable(f"turn {number} is from {turn.get('from')!r}; possible are human and gpt")
        turns.append((ROLES[turn["from"]], turn["value"]))
    talk = turns[1:] if turns[0][0] == "system" else turns
    skipped = len(turns) - len(talk)
    for number, (role, text) in enumerate(talk):
        wanted = ("user", "assistant")[number % 2]
        if role != wanted:
            raise _Unusable(f"turn {number + skipped + 1} is from the {role}, but it is the {wanted}'s turn")
        if role == "assistant" and not text.strip():
            raise _Unusable(f"turn {number + skipped + 1} is an empty answer")
    if len(talk) < 2:
        raise _Unusable("no answer")
    if len(talk) % 2:
        raise _Unusable("the last question has no answer")
    for number, (role, text) in enumerate(turns, 1):
        if role != "user" and PICTURE in text:
            raise _Unusable(f"turn {number} has an {PICTURE} outside a question")
        for token in forbidden:
            if token in text:
                raise _Unusable(f"turn {number} contains {token}, which the model keeps for itself")
    return tuple(turns)


def _images(given: Any, folder: Path) -> tuple[Path, ...]:
    names = [] if given in (None, "") else [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Unusable("image is neither a file name nor a list of file names")
    for name in names:
        if not (folder / name).is_file():
            raise _Unusable(f"no picture {folder / name}")
    return tuple(folder / name for name in names)
