"""Questions about videos as PriorTR's and FasterVLM's Video-LLaVA scripts take them, and files of predictions."""

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeless.datafile import UnreadableFile, read_records
from seeless.errors import InputError, brief, shortened
from seeless.eval.errors import InvalidRequest
from seeless.eval.matching import alike, exact
from seeless.jsonl import NoJSON, append_lines, decode, encode, read_lines
from seeless.outputs import replace_file, writing

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

    The files may be JSON lists, have one entry a line, or hold one list inside an object. Answers go with questions by
    their `question_id`, else by their place.

    Raises:
        InvalidRequest: a file cannot be read, an entry lacks something, an id occurs twice.
    """
    asked, given = _entries(questions, "question"), _entries(answers, "answer")
    ids = [_text(entry, "question_id", questions, where) for where, entry in asked]
    if twice := sorted({each for each in ids if ids.count(each) > 1} if len(set(ids)) < len(ids) else []):
        raise InvalidRequest(f"{questions} has several questions with the id {shortened(twice[0])}")
    known = [_text(entry, "answer", answers, where) for where, entry in given]
    if all("question_id" in entry for _, entry in given):
        by_id = {_text(e, "question_id", answers, w): answer for (w, e), answer in zip(given, known, strict=True)}
        if missing := [each for each in ids if each not in by_id]:
            raise InvalidRequest(
                f"{answers} has no answer to {len(missing)} questions, {shortened(missing[0])} for one"
            )
    elif len(known) == len(ids):
        by_id = dict(zip(ids, known, strict=True))
    else:
        raise InvalidRequest(
            f"{answers} has {len(known)} answers without question_id, {questions} has {len(ids)} questions"
        )
    return [
        VideoQuestion(
            each, _text(entry, "video_name", questions, where), _text(entry, "question", questions, where), by_id[each]
        )
        for each, (where, entry) in zip(ids, asked, strict=True)
    ]


def find_video(folder: Path, name: str) -> Path:
    """`name.mp4`, `.avi`, `.mov` or `.mkv` in the folder, else the same with `v_` before the name.

    Raises:
        InputError: there is none, or the name leads out of the folder.
    """
    inside = os.path.normpath(name)
    if os.path.isabs(name) or inside.split(os.sep)[0] == os.pardir or os.path.splitdrive(name)[0]:
        raise InputError(f"the video name {brief(name)} leads out of {folder}; name a video in it")
    for stem in (name, f"v_{name}"):
        for suffix in SUFFIXES:
            if os.path.isfile(file := folder / f"{stem}{suffix}"):
                return file
    raise InputError(f"no video {shortened(name)} ({', '.join(SUFFIXES)}; with or without v_ before it) in {folder}")


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
        UnwritableFile: it cannot be written, now or when an answer is added.
    """

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        self.file, self.settings = file, settings
        self.found: dict[str, dict[str, Any]] = {}
        self.broken = ""
        self._check_settings()
        if file.exists():
            self._read()
        self.failed: list[dict[str, Any]] = []
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._beside("errors.jsonl").unlink(missing_ok=True)
        replace_file(self._beside("settings.json"), encode(settings, indent=2) + b"\n")

    def add(self, question: VideoQuestion, prediction: str) -> None:
        """Write an answer down, at once."""
        line = {"id": question.id, "question": question.question, "answer": question.answer, "pred": prediction}
        self.found[question.id] = line
        append_lines(self.file, line)

    def add_error(self, question: VideoQuestion, error: str) -> None:
        """Write down why a question could not be asked; the next run tries again."""
        line = {"id": question.id, "video": question.video, "question": question.question, "error": error}
        self.failed.append(line)
        append_lines(self.errors, line)

    @property
    def errors(self) -> Path:
        """Where questions that could not be asked are."""
        return self._beside("errors.jsonl")

    def _beside(self, ending: str) -> Path:
        return self.file.with_suffix("." + ending)

    def _check_settings(self) -> None:
        kept = self._beside("settings.json")
        if not (self.file.exists() and self.file.stat().st_size):
            return
        try:
            before = decode(kept.read_bytes()) if kept.exists() else {}
        except (OSError, NoJSON) as error:
            raise InvalidRequest(f"{kept} cannot be read: {error}; give another --output") from error
        before = before if isinstance(before, dict) else {}
        for name in (*self.settings, *before):
            if before.get(name) != self.settings.get(name):
                raise InvalidRequest(
                    f"{self.file} was made with {name}={before.get(name)!r}, not {self.settings.get(name)!r}; "
                    "continue with the same settings, or give another --output"
                )

    def _read(self) -> None:
        whole, newline, rest = self.file.read_bytes().rpartition(b"\n")
        self.broken = rest.decode(errors="replace")
        if self.broken:
            replace_file(self.file, whole + newline)
        self.found = read_predictions(self.file)


def read_predictions(file: Path) -> dict[str, dict[str, Any]]:
    """The predictions of a file by their id, a last line that another process is writing left out.

    Raises:
        InvalidRequest: another line is no prediction.
    """
    found: dict[str, dict[str, Any]] = {}
    lines = list(read_lines(file))
    ended = not lines or file.read_bytes().endswith(b"\n")
    for number, entry in lines if ended else lines[:-1]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("id", "pred")):
            raise InvalidRequest(f"line {number} of {file} is no prediction; take it out")
        found[entry["id"]] = entry
    return found


def score(questions: list[VideoQuestion], found: dict[str, dict[str, Any]]) -> Score:
    """The right answers among those given."""
    pairs = [(found[each.id]["pred"], each.answer) for each in questions if each.id in found]
    return Score(len(questions), len(pairs), _count(exact(*p) for p in pairs), _count(alike(*p) for p in pairs))


def _count(right: Iterable[bool]) -> int:
    return sum(right)


def _entries(file: Path, mark: str) -> list[tuple[str, dict[str, Any]]]:
    """Where every entry stands, and what it is."""
    try:
        entries = list(read_records(file, mark))
    except UnreadableFile as error:
        raise InvalidRequest(str(error)) from error
    for where, entry in entries:
        if not isinstance(entry, dict):
            reason = f"no JSON: {entry}" if isinstance(entry, NoJSON) else "no JSON object"
            raise InvalidRequest(f"{where} of {file} is {reason}")
    if not entries:
        raise InvalidRequest(f"{file} is no JSON list of objects: it has none")
    return entries


def _text(entry: dict[str, Any], key: str, file: Path, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str | int):
        raise InvalidRequest(f"{where} of {file} has no {key!r}")
    if shortened(text := str(value), len(text)) != text:
        raise InvalidRequest(f"{key!r} in {where} of {file} has characters that are none (half of a surrogate pair)")
    return text
