"""Results as HTML that needs nothing but itself: pictures lie in it, and every text of others is escaped."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from seeless.asking.tasks import Task
from seeless.demo.answering import Answers, Column, Shown

if TYPE_CHECKING:
    from PIL.Image import Image

PREVIEW_SIDE = 240
BAR, GAP, CHART = 8, 2, 48  # of the chart of tokens per layer: widths and height, in its own units
MARKS = {True: "right", False: "wrong"}


def error_html(text: str) -> str:
    """A sentence in place of results; screen readers read it at once."""
    return f'<p class="seeless-error" role="alert">{escape(text)}</p>'


def preview_html(task: Task, questions: Sequence[str]) -> str:
    """What was given or drawn, small, of a video its first frame; and questions that can be asked about it."""
    frames = task.videos[0].frames if task.videos else []
    image = (task.images or frames)[0].copy()
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    told = f"{len(frames)} frames of {task.sources[0]}, the first" if frames else task.sources[0]
    asking = f"<br>It can be asked: {escape(' '.join(questions))}" if questions else ""
    return f"<figure>{picture_html(image, told)}<figcaption>{escape(told)}{asking}</figcaption></figure>"


def answers_html(question: str, answers: Answers) -> str:
    """All columns, side by side where there is room."""
    notes = "".join(f"<p>{escape(note)}</p>" for note in answers.notes)
    most = max(max(column.layers, default=0) for column in answers.columns)
    columns = "".join(_column(column, most) for column in answers.columns)
    return f'<h2 role="status">{escape(question)}</h2>{notes}<div class="seeless-columns">{columns}</div>'


def picture_html(image: "Image", told: str) -> str:
    """A picture, and what it shows in words."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    text = base64.b64encode(data.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{text}" alt="{escape(told)}">'


def _column(column: Column, most: int) -> str:
    name = escape(column.name)
    head = f"<h3>{name}</h3>"
    if column.trouble:
        return f'<section aria-label="{name}">{head}<p class="seeless-error">{escape(column.trouble)}</p></section>'
    mark = "" if column.right is None else f' <span class="seeless-{MARKS[column.right]}">{MARKS[column.right]}</span>'
    answer = f'<p class="seeless-answer">{escape(column.answer or "(nothing)")}{mark}</p>'
    numbers = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in column.numbers.items())
    last = "".join(_stage(column.name, stage) for stage in column.stages[-1:])
    return (
        f'<section aria-label="{name}">{head}{answer}{last}<dl>{numbers}</dl>'
        f"{_layers(column.layers, most)}{_step_by_step(column)}{_report(column)}</section>"
    )


def _stage(method: str, stage: Shown) -> str:
    """What stayed, and beside it what it was chosen by."""
    shown = _figure(stage.kept, f"{method}, {stage.title}", stage.title)
    if not stage.scores:
        return shown
    return shown + _figure(stage.scores, f"{method}, scores, {stage.title}", "scores by rank: yellow is highest")


def _figure(pictures: "Sequence[Image]", told: str, caption: str) -> str:
    several = len(pictures) > 1
    images = "".join(
        picture_html(image, f"{told}, picture {number}" if several else told)
        for number, image in enumerate(pictures, 1)
    )
    kind = ' class="seeless-several"' if several else ""
    return f"<figure><div{kind}>{images}</div><figcaption>{escape(caption)}</figcaption></figure>"


def _step_by_step(column: Column) -> str:
    """The stages one after another, of a method that has several."""
    if len(column.stages) < 2:
        return ""
    stages = "".join(f"<li>{_stage(column.name, stage)}</li>" for stage in column.stages)
    return f"<details><summary>stage by stage ({len(column.stages)})</summary><ol>{stages}</ol></details>"


def _report(column: Column) -> str:
    told = escape("\n".join(filter(None, (column.settings, column.report))))
    return f"<details><summary>settings and report</summary><pre tabindex=0>{told}</pre></details>"


def _layers(tokens: Sequence[int], most: int) -> str:
    """A bar for each decoder layer, as high as it sees visual tokens; `most` of them fill the height."""
    bars = "".join(
        f'<rect x="{layer * (BAR + GAP)}" y="{CHART - height:.1f}" width="{BAR}" height="{height:.1f}">'
        f"<title>layer {layer}: {count}</title></rect>"
        for layer, count in enumerate(tokens)
        for height in [CHART * count / most]
    )
    told = f"visual tokens in layers 0 to {len(tokens) - 1}: {', '.join(map(str, tokens))}"
    return (
        f'<figure><svg role="img" aria-label="{told}" viewBox="0 0 {len(tokens) * (BAR + GAP) - GAP} {CHART}" '
        f'preserveAspectRatio="none">{bars}</svg><figcaption>visual tokens, layer by layer</figcaption></figure>'
    )
