"""Frames of video files."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seeless.errors import MissingExtra, brief, system_reason
from seeless.pixels.endings import missing_bytes
from seeless.pixels.errors import UnreadableVideo
from seeless.pixels.rgb import convert
from seeless.pixels.sources import local_file
from seeless.pixels.turns import turn_of, turned

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Video:
    """Frames of a video.

    Args:
        frames: RGB.
        numbers: which of the file's frames they are.
        rate: the file's frames per second.
    """

    frames: "list[Image]"
    numbers: list[int]
    rate: float


def spread(total: int, count: int) -> list[int]:
    """Numbers of at most `count` of `total` frames, evenly spread, the first and the last among them.

    >>> spread(10, 4), spread(3, 8), spread(5, 1)
    ([0, 3, 6, 9], [0, 1, 2], [0])
    """
    if total <= count:
        return list(range(total))
    return [number * (total - 1) // (count - 1) for number in range(count)] if count > 1 else [0]


def read_video(source: str | os.PathLike[str], max_frames: int) -> Video:
    """At most `max_frames` frames of a video file, evenly spread, upright by its display matrix.

    A GIF, WebP or PNG of several frames is a video, too; what is transparent in it becomes white.

    Args:
        source: a path or a `file://` address.

    Raises:
        MissingExtra: PyAV is not installed.
        UnreadableVideo: the file is missing, no video, or breaks off.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtra('reading a video file needs PyAV: pip install "seeless[video]"') from error
    name = brief(source)
    try:
        path = local_file(source)
        if path is None:
            raise ValueError("videos are read from files; download it and give the file")
        if not os.path.isfile(path):
            raise UnreadableVideo(f"there is no video {name}")
        if missing := missing_bytes(path):
            raise ValueError(f"it breaks off: at least {missing:,} bytes are missing at its end; download it again")
        video = _animation(path, max_frames) if _is_webp(path) else _frames(av, path, max_frames)
    except UnreadableVideo:
        raise
    except Exception as error:  # PyAV and Pillow raise all kinds
        raise UnreadableVideo(f"cannot read the video {name}: {system_reason(error)}") from error
    if not video.frames:
        raise UnreadableVideo(f"the video {name} has no frames")
    return video


def _frames(av: Any, path: str, max_frames: int) -> Video:
    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures in it")
        stream = container.streams.video[0]
        rate, total = float(stream.average_rate or 1), stream.frames
    total = total or _count(av, path)
    frames = _pick(av, path, spread(total, max_frames))
    if len(frames) < min(total, max_frames):  # the header counts frames that are not to be shown
        frames = _pick(av, path, spread(_count(av, path), max_frames))
    return Video(list(frames.values()), list(frames), rate)


def _count(av: Any, path: str) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def _pick(av: Any, path: str, numbers: list[int]) -> "dict[int, Image]":
    wanted, found = set(numbers), {}
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = turned(_image(frame), turn_of(frame))
            if len(found) == len(wanted):
                break
        if found and frame.is_corrupt and len(numbers) > 1:
            raise ValueError(f"its frame {number} is damaged; download it again")
    return found


def _image(frame: Any) -> "Image":
    if not any(component.is_alpha for component in frame.format.components):
        return frame.to_image()
    from PIL import Image

    return convert(Image.fromarray(frame.to_ndarray(format="rgba")))


def _is_webp(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(12)[8:] == b"WEBP"


def _animation(path: str, max_frames: int) -> Video:
    """Frames by Pillow, of what PyAV cannot read."""
    from PIL import Image

    with Image.open(path) as image:
        numbers, frames = spread(getattr(image, "n_frames", 1), max_frames), []
        for number in numbers:
            image.seek(number)
            frames.append(convert(image))
        milliseconds = image.info.get("duration") or 100
    return Video(frames, numbers, 1000 / milliseconds)
