"""Draw docs/kept.png: what three methods keep of a drawing, and their answers; and count how typical it is.

python docs/make_kept.py    # `make pictures`: two minutes on one core

The drawing is the first held-out one of which the untouched model and all three methods answer the first question
rightly. results/kept.json has what they answer rightly of all drawings, and how many of the patches that show what
is asked about they keep.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

import seeless as sl
from seeless.provenance import provenance
from seeless.reader import Drawing, draw_drawing, load_reader

ROOT = Path(__file__).parents[1]
PICTURE, COUNTED = ROOT / "docs" / "kept.png", ROOT / "results" / "kept.json"
METHODS, KEEP, DRAWINGS = ("fastv", "priortr", "vispruner"), 64, 100
SIZE, GAP, LINE = 384, 16, 40


@dataclass
class Told:
    """Of one drawing, the answers by method ("none": untouched), and what was kept: the patches, and them darkened."""

    answers: dict[str, str] = field(default_factory=dict)
    asked_kept: dict[str, float] = field(default_factory=dict)
    shown: dict[str, Image.Image] = field(default_factory=dict)


def tell(model: Any, processor: Any, drawing: Drawing) -> Told:
    """What the model answers to the first question, with all tokens and under each method."""
    question, told = drawing.questions[0], Told()
    content = [{"type": "image"}, {"type": "text", "text": question.text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=drawing.image, text=prompt, return_tensors="pt")
    large = drawing.image.resize((SIZE, SIZE), Image.Resampling.NEAREST)
    asked = {place for place, owner in enumerate(drawing.owner) if owner in question.about}

    def answer() -> str:
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    told.answers["none"], told.shown["none"] = answer(), large
    for name in METHODS:
        with sl.apply(model, name, keep=KEEP) as run:
            told.answers[name] = answer()
        kept = set(run.report.stages[-1].kept[0].tolist())
        told.asked_kept[name] = len(asked & kept) / len(asked)
        told.shown[name] = run.report.overlay(large)
    return told


def sheet(question: str, told: Told) -> Image.Image:
    """The drawing with its question, and beside it what each method keeps, each with its answer above."""
    captions = {"none": f"{question} {told.answers['none']}"}
    captions |= {name: f"{name}, {KEEP} of 576: {told.answers[name]}" for name in METHODS}
    drawn = Image.new("RGB", (len(captions) * (SIZE + GAP) - GAP, SIZE + LINE), "white")
    for number, (name, caption) in enumerate(captions.items()):
        drawn.paste(told.shown[name], (number * (SIZE + GAP), LINE))
        ImageDraw.Draw(drawn).text((number * (SIZE + GAP), 6), caption, fill="black", font_size=22)
    return drawn


def main() -> None:
    model, processor = load_reader()
    drawings = [draw_drawing(seed) for seed in range(DRAWINGS)]
    found = [tell(model, processor, drawing) for drawing in drawings]
    right = [
        {name: answer == drawing.questions[0].answer for name, answer in told.answers.items()}
        for drawing, told in zip(drawings, found, strict=True)
    ]
    first = next(number for number, each in enumerate(right) if all(each.values()))
    sheet(drawings[first].questions[0].text, found[first]).save(PICTURE)
    counted = {
        "command": "python docs/make_kept.py",
        "drawings": DRAWINGS,
        "keep": KEEP,
        "shown": first,
        "right": {name: sum(each[name] for each in right) for name in right[0]},
        "asked_kept": {name: sum(told.asked_kept[name] for told in found) / DRAWINGS for name in METHODS},
        **provenance(),
    }
    COUNTED.write_text(json.dumps(counted, indent=1) + "\n")


if __name__ == "__main__":
    main()
