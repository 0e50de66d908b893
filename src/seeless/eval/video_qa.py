"""Questions about videos as PriorTR's and FasterVLM's Video-LLaVA scripts take them, and files of predictions."""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeless.errors import InputError
from seeless.eval.errors import InvalidRequest
from seeless.eval.matching import alike, exact
from seeless.pixels import shorten

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


@dataclass(frozen=True)
class VideoQuestion:
    """A question about a video, and its answer."""

    id: str
    video: str
    question: str
    answer: str


@dataclass(frozen=True)
class Score:
    """How many of the questions asked were answered, and how many answers are right."""

    questions: int
    answered: int
    exact: int
    normalised: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with the shares of right answers among those given."""
        shares = {
            "exact_accuracy": self.exact / self.answered if self.answered else None,
            "normalised_accuracy": self.normalised / self.answered if self.answered else None,
        }
        return {**vars(self), **shares}


def read_questions(questions: Path, answers: Path) -> list[VideoQuestion]:
    """The questions with their answers: `[{"video_name", "question_id", "question"}]` and `[{"answer"}]`.

    Answers go with questions by their `question_id`, else by their place.

    Raises:
        InvalidRequest: a file cannot be read, an entry lacks something, an id occurs twice.
    """
    asked, given = _entries(questions), _entries(answers)
    ids = [_text(entry, "question_id", questions, place) for place, entry in enumerate(asked)]
    if twice := sorted({each for each in ids if ids.count(each) > 1} if len(set(ids)) < len(ids) else []):
        raise InvalidRequest(f"{questions} has several questions with the id {twice[0]}")
    known = [_text(entry, "answer", answers, place) for place, entry in enumerate(given)]
    if all("question_id" in entry for entry in given):
        by_id = {str(entry["question_id"]): answer for entry, answer in zip(given, known, strict=True)}
        if missing := [each for each in ids if each not in by_id]:
            raise InvalidRequest(f"{answers} has no answer to {len(missing)} questions, {missing[0]} for one")
    elif len(known) == len(ids):
        by_id = dict(zip(ids, known, strict=True))
    else:
        raise InvalidRequest(
            f"{answers} has {len(known)} answers without question_id, {questions} has {len(ids)} questions"
        )
    return [
        VideoQuestion(
            each, _text(entry, "video_name", questions, place), _text(entry, "question", questions, place), by_id[each]
        )
        for place, (each, entry) in enumerate(zip(ids, asked, strict=True))
    ]


def find_video(folder: Path, name: str) -> Path:
    """`name.mp4`, `.avi`, `.mov` or `.mkv` in the folder, else the same with `v_` before the name.

    Raises:
        InputError: there is none, or the name leads out of the folder.
    """
    inside = os.path.normpath(name)
    if os.path.isabs(name) or inside.split(os.sep)[0] == os.pardir or os.path.splitdrive(name)[0]:
        raise InputError(f"the video name {shorten(name)!r} leads out of {folder}; name a video in it")
    for stem in (name, f"v_{name}"):
        for suffix in SUFFIXES:
            if os.path.isfile(file := folder / f"{stem}{suffix}"):
                return file
    raise InputError(f"no video {shorten(name)} ({', '.join(SUFFIXES)}; with or without v_ before it) in {folder}")


def chunk(questions: list[VideoQuestion], count: int, index: int) -> list[VideoQuestion]:
    """Part `index` of `count` parts that follow each other, as Video-LLaVA's scripts cut them.

    Raises:
        InvalidRequest: there is no such part.
    """
    if index >= count:
        raise InvalidRequest(f"--chunk-idx {index}: with --num-chunks {count} they go from 0 to {count - 1}")
    size = math.ceil(len(questions) / count)
    return questions[index * size : (index + 1) * size]


def fingerprint(file: Path) -> str:
    """A short name for the content of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


class Predictions:
    """A file of predictions, one JSON object per line, that a stopped run left and the next one continues.

    Args:
        file: `NAME.jsonl`; beside it are `NAME.settings.json` and, of questions that could not be asked,
            `NAME.errors.jsonl`.
        settings: what the answers depend on.
        found: the predictions that are there, by id.
        broken: the beginning of a last line that was being written when the run before was stopped; taken off.

    Raises:
        InvalidRequest: the file was made with other settings, or a line of it is broken.
    """

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        self.file, self.settings = file, settings
        self.found: dict[str, dict[str, Any]] = {}
        self.broken = ""
        self._check_settings()
        if file.exists():
            self._read()
        self.failed: list[dict[str, Any]] = []
        file.parent.mkdir(parents=True, exist_ok=True)
        self._beside("settings.json").write_text(json.dumps(settings, indent=2) + "\n")
        self._beside("errors.jsonl").unlink(missing_ok=True)

    def add(self, question: VideoQuestion, prediction: str) -> None:
        """Write an answer down, at once."""
        line = {"id": question.id, "question": question.question, "answer": question.answer, "pred": prediction}
        self.found[question.id] = line
        self._append(self.file, line)

    def add_error(self, question: VideoQuestion, error: str) -> None:
        """Write down why a question could not be asked; the next run tries again."""
        line = {"id": question.id, "video": question.video, "question": question.question, "error": error}
        self.failed.append(line)
        self._append(self.errors, line)

    @property
    def errors(self) -> Path:
        """Where questions that could not be asked are."""
        return self._beside("errors.jsonl")

    def _beside(self, ending: str) -> Path:
        return self.file.with_suffix("." + ending)

    def _append(self, file: Path, line: dict[str, Any]) -> None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _check_settings(self) -> None:
        kept = self._beside("settings.json")
        if not self.file.exists():
            return
        before = json.loads(kept.read_text()) if kept.exists() else {}
        for name in (*self.settings, *before):
            if before.get(name) != self.settings.get(name):
                raise InvalidRequest(
                    f"{self.file} was made with {name}={before.get(name)!r}, not {self.settings.get(name)!r}; "
                    "continue with the same settings, or give another --output"
                )

    def _read(self) -> None:
        whole, newline, self.broken = self.file.read_text(encoding="utf-8", errors="replace").rpartition("\n")
        for number, line in enumerate(whole.split("\n") if whole else [], 1):
            try:
                entry = json.loads(line)
                self.found[entry["id"]] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidRequest(f"line {number} of {self.file} is no prediction; take it out") from error
        if self.broken:
            self.file.write_text(whole + newline, encoding="utf-8")


def score(questions: list[VideoQuestion], found: dict[str, dict[str, Any]]) -> Score:
    """The right answers among those given."""
    pairs = [(found[each.id]["pred"], each.answer) for each in questions if each.id in found]
    return Score(len(questions), len(pairs), _count(exact(*p) for p in pairs), _count(alike(*p) for p in pairs))


def _count(right: Iterable[bool]) -> int:
    return sum(right)


def _entries(file: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read {file}: {error}") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequest(f"{file} is no JSON list of objects")
    return entries


def _text(entry: dict[str, Any], key: str, file: Path, place: int) -> str:
    value = entry.get(key)
    if not isinstance(value, str | int):
        raise InvalidRequest(f"entry {place} of {file} has no {key!r}")
    return str(value)
