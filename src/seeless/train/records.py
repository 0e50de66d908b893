"""Read conversations about pictures in LLaVA's format, and say what is wrong with which record."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeless import datafile
from seeless.errors import brief, shortened
from seeless.jsonl import NoJSON
from seeless.pixels import is_inline, local_file
from seeless.train.errors import BadRecords

PICTURE = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Record:
    """One conversation.

    Args:
        file: where it was read.
        where: "line 7" (JSONL) or "record 7" (JSON) of the file, counted from one.
        name: its `id`, None without one.
        images: files of its pictures, or pictures as text (data: URIs, base64), in the order of the `<image>` marks in
            its turns.
        turns: role ("system", "user" or "assistant") and text of each turn.
    """

    file: str
    where: str
    name: str | None
    images: tuple[Path | str, ...]
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be trained on, and why."""

    file: str
    where: str
    name: str | None
    reason: str

    def __str__(self) -> str:
        name = "" if self.name is None else f" ({shortened(self.name)})"
        return f"{self.where}{name}: {self.reason}"


class _Unusable(Exception):
    """Why one record cannot be used."""


def read_records(
    file: Path, image_folder: Path | None = None, reserved: Collection[str] = ()
) -> tuple[list[Record], list[BadRecord]]:
    """The records of a file, and those that cannot be trained on.

    A record is `{"id", "image": one picture, a list of them or absent, "conversations": [{"from": "human" or "gpt",
    "value": text}]}`; a picture is a file, or text that holds it (a data: URI, base64). The file is a JSON list of
    records, JSONL with one record a line, a single record, or an object with one list of records in it. Every picture
    has its `<image>` in a human turn; turns alternate, a "system" turn may come first, the last is an answer. Pictures
    must exist; they are opened only when they are needed.

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
    try:
        for where, data in datafile.read_records(file, mark="conversations"):
            name = str(data["id"]) if isinstance(data, dict) and isinstance(data.get("id"), str | int | float) else None
            try:
                good.append(Record(str(file), where, name, *_contents(data, folder, forbidden)))
            except _Unusable as reason:
                bad.append(BadRecord(str(file), where, name, str(reason)))
    except datafile.UnreadableFile as error:
        raise BadRecords(str(error)) from error
    if not good and not bad:
        raise BadRecords(f"{file} holds no records")
    return good, bad


def _contents(
    data: Any, folder: Path, forbidden: list[str]
) -> tuple[tuple[Path | str, ...], tuple[tuple[str, str], ...]]:
    """Pictures and turns of a record."""
    if isinstance(data, NoJSON):
        raise _Unusable(f"no JSON: {data}")
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
        if not isinstance(turn.get("from"), str) or turn["from"] not in ROLES:
            raise _Unusable(f"turn {number} is from {brief(turn.get('from'))}; possible are human and gpt")
        if not _is_text(turn["value"]):
            raise _Unusable(f"turn {number} has characters that are none (half of a surrogate pair, or no UTF-8)")
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


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _images(given: Any, folder: Path) -> tuple[Path | str, ...]:
    names = [] if given in (None, "") else [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Unusable("image is neither a file name nor a list of file names")
    return tuple(_image(name, folder) for name in names)


def _image(name: str, folder: Path) -> Path | str:
    if is_inline(name):
        return name
    try:
        own = local_file(name)
    except ValueError as error:
        raise _Unusable(str(error)) from error
    if own is None:
        raise _Unusable(f"no picture {brief(name)}: pictures are files or data: URIs here, so fetch it first")
    if not os.path.isfile(path := folder / own):
        raise _Unusable(f"no picture {brief(path)}")
    return path
