"""A prompt as benchmarks give it: text, pictures and videos, in the model's own chat format."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from seeless.errors import InputError
from seeless.pixels import Video, is_animation, is_video, load_image, read_video, to_rgb

MARKER = "<image>"
logger = logging.getLogger("seeless.integrations")
Message = dict[str, Any]


@dataclass
class Prompt:
    """A conversation that waits for an answer.

    Args:
        messages: as chat templates take them, with pictures and videos in their parts: `{"type": "text", "text": ...}`,
            `{"type": "image", "image": RGB}`, `{"type": "video", "video": a Video}`.
    """

    messages: list[Message]

    @property
    def parts(self) -> Iterator[Message]:
        """The parts of all messages in order."""
        return (part for message in self.messages for part in message["content"])

    @property
    def length(self) -> int:
        """Characters of its text."""
        return sum(len(part.get("text", "")) for part in self.parts)


def prompt_of_text(text: str, visuals: Sequence[Any], max_frames: int, system: str | None = None) -> Prompt:
    """A prompt of one user turn: the pictures first, then the text, as `prompt_of_messages` makes it.

    Args:
        visuals: Pillow images, paths of pictures or videos, lists of frames (Pillow images).
    """
    content = [*({"type": "image", "url": visual} for visual in visuals), {"type": "text", "text": text}]
    return prompt_of_messages([{"role": "user", "content": content}], max_frames, system)


def prompt_of_messages(messages: Sequence[Message], max_frames: int, system: str | None = None) -> Prompt:
    """A prompt from messages in the form of lmms-eval: parts `{"type": "image", "url": a picture}` and the like.

    If the text of a message has as many `<image>` marks as the message has pictures and videos, those stand where the
    marks are. With another number of marks, the marks are left out.

    Args:
        max_frames: of a video file, spread evenly.
        system: text of a system turn, unless the messages have one.

    Raises:
        InputError: a part that is neither text, picture nor video, or cannot be read.
    """
    own = any(each["role"] == "system" for each in messages)
    turns = [{"role": "system", "content": [_text(system)]}] if system and not own else []
    for message in messages:
        content = message["content"]
        parts = [_text(content)] if isinstance(content, str) else content
        taken = [part if part["type"] == "text" else _part(_visual(part), part["type"], max_frames) for part in parts]
        turns.append({"role": message["role"], "content": _placed(taken)})
    return Prompt(turns)


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _placed(parts: list[Message]) -> list[Message]:
    """The parts with pictures and videos where the marks are, and without blank text."""
    visuals = [part for part in parts if part["type"] != "text"]
    marks = sum(part["text"].count(MARKER) for part in parts if part["type"] == "text")
    if marks and marks != len(visuals):
        _warn(f"{marks} {MARKER} marks for {len(visuals)} pictures: the marks are left out")
    placed: list[Message] = []
    left = iter(visuals)
    for part in parts:
        if part["type"] != "text":
            placed += [] if marks == len(visuals) else [part]
        elif MARKER not in part["text"]:
            placed.append(part)
        else:
            for number, piece in enumerate(part["text"].split(MARKER)):
                placed += [next(left)] if number and marks == len(visuals) else []
                placed.append(_text(piece.strip()))
    return [part for part in placed if part.get("text", MARKER).strip()]


@cache
def _warn(text: str) -> None:
    """Once for every text."""
    logger.warning(text)


def _visual(part: dict[str, Any]) -> Any:
    kind = part["type"]
    if kind not in ("image", "video"):
        raise InputError(f"a part of type {kind!r} cannot be shown to this model; it takes text, images and videos")
    return next((part[name] for name in ("url", kind, "path") if part.get(name) is not None), None)


def _part(visual: Any, kind: str, max_frames: int) -> Message:
    """A picture or video as a part of a message.

    Of a path, the file's content says which it is; only where it is a picture that moves, the part's own type does.
    """
    from PIL import Image

    if isinstance(visual, dict):
        visual = next((visual[name] for name in ("bytes", "url", "path") if visual.get(name) is not None), None)
    if isinstance(visual, Image.Image):
        return {"type": "image", "image": to_rgb(visual)}
    if isinstance(visual, Path | str) and (is_video(visual) or (kind == "video" and is_animation(visual))):
        return {"type": "video", "video": read_video(visual, max_frames)}
    if isinstance(visual, Path | str | bytes):
        return {"type": "image", "image": load_image(visual)}
    if isinstance(visual, list | tuple) and visual and all(isinstance(frame, Image.Image) for frame in visual):
        frames = [to_rgb(frame) for frame in visual]
        return {"type": "video", "video": Video(frames, list(range(len(frames))), 1.0)}
    raise InputError(
        f"a {type(visual).__name__} is no picture and no video; give a Pillow image, a path, or a list of frames"
    )
