"""What is asked: pictures, videos, and a question about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seeless.errors import shortened

if TYPE_CHECKING:
    from PIL.Image import Image

    from seeless.pixels import Video

LONGEST_SOURCE = 300  # characters; a data: URI has thousands
QUESTIONS = {True: "how many digits are there?", False: "What is shown in this picture?"}  # by: embedded model?


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
    embedded: bool,
) -> Task:
    """Pictures and videos with a question; without any, the held-out scene `seed` of the embedded model.

    Args:
        images, videos: where from, as `load_image` and `read_video` take them.
        frames: of each video, evenly spaced.
        allow_private: whether web addresses may lead into this machine's own network.
        ask: the question; None: one that goes with the scene, or with the model (`embedded`).

    Raises:
        UnreadableImage, UnreadableVideo: a source cannot be read.
    """
    from seeless.pixels import load_image, read_video
    from seeless.tiny import draw_scene

    if images or videos:
        pictures = [load_image(source, allow_private=allow_private) for source in images]
        films = [read_video(source, frames) for source in videos]
        told = map(str, [*images, *videos])
        names = [source if len(source) <= LONGEST_SOURCE else shortened(source) for source in told]
        return Task(pictures, films, names, ask or QUESTIONS[embedded], None)
    scene = draw_scene(seed)
    question = scene.questions[0].text if ask is None else ask
    answers = {q.text: q.answer for q in scene.questions}
    return Task([scene.image], [], [f"held-out scene {seed}"], question, answers.get(question))
