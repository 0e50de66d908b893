"""Frames of video files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeless.errors import InputError, MissingExtra

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


def read_video(path: str | Path, max_frames: int) -> Video:
    """At most `max_frames` frames of a video file, evenly spread.

    Raises:
        MissingExtra: PyAV is not installed.
        InputError: the file is missing, or no video.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtra("reading a video file needs PyAV: pip install av") from error
    if not Path(path).is_file():
        raise InputError(f"there is no video {str(path)!r}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{str(path)!r} has no pictures in it")
            stream = container.streams.video[0]
            rate, total = float(stream.average_rate or 1), stream.frames
        if total == 0:
            total = _count(av, path)
        frames = _pick(av, path, spread(total, max_frames))
        if len(frames) < min(total, max_frames):  # the header promised more frames than there are
            total = _count(av, path)
            frames = _pick(av, path, spread(total, max_frames))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot read the video {str(path)!r}: {error}") from error
    if not frames:
        raise InputError(f"the video {str(path)!r} has no frames")
    return Video(list(frames.values()), list(frames), rate)


def _count(av: Any, path: str | Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _pick(av: Any, path: str | Path, numbers: list[int]) -> "dict[int, Image]":
    wanted, found = set(numbers), {}
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = frame.to_image()
            if len(found) == len(wanted):
                break
    return found
