"""Evenly spaced frames of a video file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeless.errors import MissingExtra, SeelessError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


class UnreadableVideo(SeelessError):
    """A video that is missing or broken, or has no pictures."""


@dataclass(frozen=True)
class Frames:
    """Pictures from a video.

    Args:
        images: in the order of time, in RGB; where the video has fewer frames, some repeat.
        index: which frames of the video they are.
        total: how many it has.
        fps: per second; None where the file does not say.
    """

    images: "list[Image]"
    index: list[int]
    total: int
    fps: float | None

    def metadata(self) -> dict[str, Any]:
        """What processors of `transformers` take as `video_metadata`, for those that write times into the prompt."""
        fps = self.fps or 25.0
        return {
            "total_num_frames": self.total,
            "fps": fps,
            "duration": self.total / fps,
            "frames_indices": self.index,
            "width": self.images[0].width,
            "height": self.images[0].height,
        }


def find_video(folder: Path, name: str) -> Path:
    """`name.mp4`, `.avi`, `.mov` or `.mkv` in the folder, else the same with `v_` before the name.

    Raises:
        UnreadableVideo: there is none.
    """
    for stem in (name, f"v_{name}"):
        for suffix in SUFFIXES:
            if (file := folder / f"{stem}{suffix}").is_file():
                return file
    raise UnreadableVideo(f"no video {name} ({', '.join(SUFFIXES)}; with or without v_ before it) in {folder}")


def spread(total: int, count: int) -> list[int]:
    """Evenly spaced frames from the first to the last, as Video-LLaVA takes them.

    >>> spread(100, 8), spread(3, 4)
    ([0, 14, 28, 42, 56, 70, 84, 99], [0, 0, 1, 2])
    """
    return [0] * count if count == 1 else [place * (total - 1) // (count - 1) for place in range(count)]


def read_frames(file: Path, count: int) -> Frames:
    """`count` evenly spaced frames of a video.

    Raises:
        UnreadableVideo: it is broken, or has no pictures.
        MissingExtra: PyAV is not installed.
    """
    with _video(file) as (container, stream):
        total = stream.frames or sum(1 for _ in container.decode(stream))
        fps = None if stream.average_rate is None else float(stream.average_rate)
    chosen, seen = _pick(file, spread(total, count))
    if seen < total:  # files may promise more than they have
        total = seen
        chosen, _ = _pick(file, spread(total, count))
    index = spread(total, count)
    return Frames([chosen[place] for place in index], index, total, fps)


def _pick(file: Path, index: list[int]) -> "tuple[dict[int, Image], int]":
    """The frames at these places, and how many there were up to the last of them."""
    chosen, seen = {}, 0
    with _video(file) as (container, stream):
        for seen, frame in enumerate(container.decode(stream), start=1):
            if seen - 1 in index:
                chosen[seen - 1] = frame.to_image()
            if seen > index[-1]:
                break
    if not seen:
        raise UnreadableVideo(f"{file} has no pictures")
    return chosen, seen


@contextmanager
def _video(file: Path) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise MissingExtra('videos are read by PyAV: pip install "seeless[video]"') from error
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise UnreadableVideo(f"{file} has no pictures")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{file} cannot be read: {error}") from error
