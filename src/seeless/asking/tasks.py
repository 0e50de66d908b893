"""What is asked: pictures, videos, and a question about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seeless.errors import shortened
from seeless.named.checkpoints import READER, TINY

if TYPE_CHECKING:
    from PIL.Image import Image

    from seeless.pixels import Video
    from seeless.reader import Drawing
    from seeless.tiny import Scene

LONGEST_SOURCE = 300  # characters; a data: URI has thousands
QUESTIONS = {TINY: "how many digits are there?", READER: "how many words are there?"}  # by embedded model
QUESTION = "What is shown in this picture?"  # to any other


@dataclass(frozen=True)
class Task:
    """Pictures and videos, where they come from, a question about them, and the right answer where it is known."""

    images: "list[Image]"
    videos: "list[Video]"
    sources: list[str]
    question: str
    right_answer: str | None

    @property
    def pictured(self) -> list[str]:
        """Where the pictures come from."""
        return self.sources[: len(self.images)]

    @property
    def filmed(self) -> list[str]:
        """Where the videos come from."""
        return self.sources[len(self.images) :]


def make_task(
    images: "Sequence[str | Path]",
    videos: "Sequence[str | Path]",
    frames: int,
    allow_private: bool,
    ask: str | None,
    seed: int,
    embedded: str | None,
) -> Task:
    """Pictures and videos with a question; without any, the held-out drawing `seed`, or for the embedded model `tiny`
    the held-out scene `seed`.

    Args:
        images, videos: where from, as `load_image` and `read_video` take them.
        frames: of each video, evenly spaced.
        allow_private: whether web addresses may lead into this machine's own network.
        ask: the question; None: one that goes with what is drawn, or with the model.
        embedded: the name of the embedded model that is asked; None: another one is.

    Raises:
        UnreadableImage, UnreadableVideo: a source cannot be read.
    """
    from seeless.pixels import load_image, read_video

    if images or videos:
        pictures = [load_image(source, allow_private=allow_private) for source in images]
        films = [read_video(source, frames) for source in videos]
        told = map(str, [*images, *videos])
        names = [source if len(source) <= LONGEST_SOURCE else shortened(source) for source in told]
        return Task(pictures, films, names, ask or QUESTIONS.get(embedded or "", QUESTION), None)
    kind, drawn = draw(embedded, seed)
    question = drawn.questions[0].text if ask is None else ask
    answers = {q.text: q.answer for q in drawn.questions}
    return Task([drawn.image], [], [f"held-out {kind} {seed}"], question, answers.get(question))


def draw(embedded: str | None, seed: int) -> "tuple[str, Drawing | Scene]":
    """What is drawn for a model, and what that is called: a scene for `tiny`, for all others a drawing."""
    from seeless.reader import draw_drawing
    from seeless.tiny import draw_scene

    return ("scene", draw_scene(seed)) if embedded == TINY else ("drawing", draw_drawing(seed))
