"""The shipped data: conversations about generated scenes of handwritten digits, in LLaVA's format.

The embedded model answers questions in one word; these answers are sentences of words it knows, so that there is
something to learn.
"""

from pathlib import Path

import torch

from seeless.jsonl import encode
from seeless.outputs import replace_file, writing
from seeless.tiny.scenes import Question, draw_scenes
from seeless.train.records import PICTURE


def sentence(question: Question) -> str:
    """The answer to a question as a sentence.

    >>> sentence(Question("colour", "what colour is the 7?", "red"))
    'the colour is red'
    """
    if question.kind == "count":
        return "there is 1 digit" if question.answer == "1" else f"there are {question.answer} digits"
    return f"the {question.kind} is {question.answer}"


def write_scenes(folder: Path, count: int, seed: int = 0) -> Path:
    """Write `count` training scenes as pictures and one `scenes.json` with a conversation about each.

    Returns:
        The JSON file.

    Raises:
        UnwritableFile: the folder cannot be written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, scene in enumerate(draw_scenes(count, torch.Generator().manual_seed(seed), held_out=False)):
        name = f"{number:04}.png"
        with writing(folder / name):
            scene.image.save(folder / name)
        turns: list[dict[str, str]] = []
        for question in scene.questions:
            mark = "" if turns else f"{PICTURE}\n"
            turns.append({"from": "human", "value": mark + question.text})
            turns.append({"from": "gpt", "value": sentence(question)})
        records.append({"id": f"scene-{number}", "image": name, "conversations": turns})
    file = folder / "scenes.json"
    replace_file(file, encode(records, indent=1))
    return file
