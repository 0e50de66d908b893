"""Pictures with questions: a folder of pictures, records of a JSON file, or drawings and scenes."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeless.datafile import UnreadableFile, read_records
from seeless.errors import brief, shortened
from seeless.jsonl import NoJSON

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "<image>"


@dataclass(frozen=True)
class Sample:
    """One picture with a question.

    Args:
        name: where the picture comes from.
        load: gives the picture, upright 8-bit RGB; raises `pixels.UnreadableImage`.
    """

    name: str
    question: str
    load: "Callable[[], Image]"


def drawing_samples(count: int) -> list[Sample]:
    """The held-out drawings of the embedded model `reader`, each with its first question."""
    from seeless.reader import draw_drawing

    drawings = (draw_drawing(seed) for seed in range(count))
    return [
        Sample(f"held-out drawing {seed}", drawing.questions[0].text, partial(getattr, drawing, "image"))
        for seed, drawing in enumerate(drawings)
    ]


def scene_samples(count: int) -> list[Sample]:
    """The held-out scenes of the embedded model `tiny`, each with its first question."""
    from seeless.tiny import draw_scene

    scenes = (draw_scene(seed) for seed in range(count))
    return [
        Sample(f"held-out scene {seed}", scene.questions[0].text, partial(getattr, scene, "image"))
        for seed, scene in enumerate(scenes)
    ]


def folder_samples(folder: Path, question: str) -> list[Sample]:
    """The pictures in a folder in the order of their names, the same question to each.

    Raises:
        UnreadableFile: it has none.
    """
    from PIL import Image

    known = set(Image.registered_extensions())
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in known and file.is_file())
    if not files:
        raise UnreadableFile(f"{brief(folder)} has no pictures in it; give a folder with some, or a JSON file")
    return [Sample(file.name, question, partial(_load, str(file))) for file in files]


def record_samples(file: Path, folder: Path | None, question: str | None) -> list[Sample]:
    """The records of a JSON file: one picture each, and a question.

    A record is `{"image": path, address or data: URI, "question": text}`, or one of LLaVA's with "conversations", of
    which the first human turn is asked. A JSON list, lines of JSON, or an object with one list of records in it.

    Args:
        folder: what the pictures' paths are relative to; the file's own folder unless told.
        question: what is asked in place of what the records ask.

    Raises:
        UnreadableFile: the file cannot be read, or a record lacks something; nothing has been asked then.
    """
    inside = file.resolve().parent if folder is None else folder
    samples = []
    for where, record in read_records(file, mark="image"):
        if isinstance(record, NoJSON) or not isinstance(record, dict):
            raise UnreadableFile(f"{where} of {brief(file)} is no JSON object")
        image, asked = record.get("image"), question or _question(record)
        if not isinstance(image, str) or not image:
            raise UnreadableFile(
                f"{where} of {brief(file)} has image={brief(image)}; a study takes one picture per record: a path, an "
                "address or a data: URI"
            )
        if not asked:
            raise UnreadableFile(f"{where} of {brief(file)} has no question; give one, or --ask for all")
        samples.append(Sample(shortened(image), asked, partial(_load, _source(inside, image))))
    if not samples:
        raise UnreadableFile(f"{brief(file)} has no records")
    return samples


def fingerprint(samples: Sequence[Sample]) -> str:
    """A short name for the pictures' names and the questions, in their order."""
    told = "\0".join(f"{sample.name}\0{sample.question}" for sample in samples)
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _question(record: dict[str, Any]) -> str | None:
    if isinstance(asked := record.get("question"), str):
        return asked.replace(MARK, "").strip()
    turns = record.get("conversations")
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, dict) and turn.get("from") in ("human", "user") and isinstance(turn.get("value"), str):
            return turn["value"].replace(MARK, "").strip()
    return None


def _source(folder: Path, image: str) -> str:
    """A path that is relative, from the folder on; other sources as they are."""
    from seeless.pixels import local_file

    path = local_file(image)
    return image if path is None else os.path.join(folder, path)


def _load(source: str) -> "Image":
    from seeless.pixels import load_image

    return load_image(source)
