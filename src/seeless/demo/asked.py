"""From what a visitor gives to what is asked."""

from dataclasses import replace
from pathlib import Path

from seeless.asking.tasks import Task, draw, make_task
from seeless.errors import InputError
from seeless.pixels import UnreadableImage, UnreadableVideo, is_animation, is_video

FRAMES = 8  # of a video
MOST_DRAWINGS = 2**31
LONGEST_QUESTION = 1000


def questions_about(upload: str | None, number: float | None, embedded: str | None) -> list[str]:
    """What an embedded model can be asked about what is drawn for it; of other pictures and models nobody knows."""
    if upload is not None or number is None or embedded is None:
        return []
    return [question.text for question in draw(embedded, int(number))[1].questions]


def task_of(upload: str | None, number: float | None, question: str | None, embedded: str | None) -> Task:
    """A visitor's picture or video, or what is drawn for a number, with the question.

    Args:
        upload: a file of this machine, which the page has stored.
        question: None: one that goes with the picture.
        embedded: the name of the embedded model that is asked; None: another one is.

    Raises:
        InputError: there is neither, or no question.
        UnreadableImage, UnreadableVideo: the file, named as the visitor did, cannot be read.
    """
    if question is not None and not 0 < len(question.strip()) <= LONGEST_QUESTION:
        raise InputError(f"the question is empty or longer than {LONGEST_QUESTION} characters; ask in a sentence")
    asked = None if question is None else question.strip()
    if upload is None:
        if number is None or not 0 <= number < MOST_DRAWINGS or number != int(number):
            raise InputError(
                f"there is no picture; choose a file, or give a number to draw for, 0 to {MOST_DRAWINGS - 1:,}"
            )
        return make_task([], [], FRAMES, False, asked, int(number), embedded)
    file = Path(upload)
    filmed = is_video(file) or is_animation(file)
    try:
        task = make_task([] if filmed else [file], [file] if filmed else [], FRAMES, False, asked, 0, embedded)
    except (UnreadableImage, UnreadableVideo) as error:
        raise type(error)(str(error).replace(str(file), file.name)) from error
    return replace(task, sources=[file.name])
