"""Frames of videos against arrays made by hand; files that break off; where videos may lie."""

import struct

import numpy as np
import pytest
from PIL import Image
from pixel_files import ORIENTATIONS, shown, stored

import seeless as sl
from seeless.eval.video_qa import find_video
from seeless.integrations.prompts import prompt_of_messages, prompt_of_text
from seeless.pixels import UnreadableImage, UnreadableVideo, is_video, read_video
from seeless.pixels.endings import missing_bytes

av = pytest.importorskip("av")
ONE = 1 << 16
# The display matrix (a, b, c, d) that shows what is stored as `stored(picture, orientation)`, by the definition of MP4:
# the pixel at (x, y) goes to (a x + c y, b x + d y).
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def encode(file, frames, codec="mpeg4", pix_fmt="yuv420p", **options):
    """A video of arrays `[height, width, 3 or 4]`, ten a second."""
    with av.open(str(file), "w", options={name: str(value) for name, value in options.items()}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = pix_fmt, 4_000_000
        for frame in frames:
            kind = "rgba" if frame.shape[2] == 4 else "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, kind)))
        container.mux(stream.encode())
    return file


def moving(count=20) -> list[np.ndarray]:
    """Frames whose red tells their number."""
    frames = [shown(48, 80) for _ in range(count)]
    for number, frame in enumerate(frames):
        frame[..., 0] = 10 + 12 * number
    return frames


def with_matrix(file, matrix) -> None:
    """Write a display matrix into the header of an MP4's only track."""
    data = bytearray(file.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8
    a, b, c, d = (round(each * ONE) for each in matrix)
    assert struct.unpack(">9i", data[at : at + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(data)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_turned_by_the_display_matrix(tmp_path, orientation, suffix):
    file = encode(tmp_path / f"turned.{suffix}", [stored(shown(48, 80), orientation)] * 3, "mjpeg", "yuvj444p")
    with_matrix(file, MATRICES[orientation])
    video = read_video(file, 2)
    assert video.numbers == [0, 2]
    for frame in video.frames:
        assert frame.size == (80, 48)
        assert np.abs(np.asarray(frame).astype(int) - shown(48, 80))[4:20, 4:36].max() < 24
        for row, column in ((6, 6), (6, 70), (40, 6), (40, 70)):  # one in every corner's block
            assert np.abs(np.array(frame.getpixel((column, row))) - shown(48, 80)[row, column].astype(int)).max() < 24


def test_other_matrices(tmp_path):
    file = encode(tmp_path / "a.mp4", moving(3))
    plain = [np.asarray(frame) for frame in read_video(file, 3).frames]
    kept = file.read_bytes()
    for matrix in ((2, 0, 0, 2), (0, 0, 0, 0), (1, 0.001, -0.001, 1)):  # larger, unset, rounded
        file.write_bytes(kept)
        with_matrix(file, matrix)
        assert (np.asarray(read_video(file, 3).frames) == plain).all()
    file.write_bytes(kept)
    with_matrix(file, (0.71, 0.71, -0.71, 0.71))
    with pytest.raises(UnreadableVideo, match=r"a\.mp4.* no multiple of 90 degrees"):
        read_video(file, 3)


KINDS = {
    "a.mp4": ("mpeg4", "yuv420p", {}),
    "header-first.mp4": ("mpeg4", "yuv420p", {"movflags": "faststart"}),
    "fragments.mp4": ("mpeg4", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "a.mov": ("mjpeg", "yuvj420p", {}),
    "a.mkv": ("mpeg4", "yuv420p", {}),
    "stream.mkv": ("mpeg4", "yuv420p", {"live": 1}),
    "a.webm": ("libvpx-vp9", "yuv420p", {}),
    "a.avi": ("mpeg4", "yuv420p", {}),
    "a.flv": ("flv", "yuv420p", {}),
    "a.wmv": ("wmv2", "yuv420p", {}),
    "a.gif": ("gif", "rgb8", {}),
    "a.png": ("apng", "rgb24", {"f": "apng"}),
    "a.ts": ("mpeg2video", "yuv420p", {}),
    "a.mpg": ("mpeg2video", "yuv420p", {}),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of every kind that can be written here."""
    folder, made = tmp_path_factory.mktemp("videos"), {}
    for name, (codec, pix_fmt, options) in KINDS.items():
        if codec not in av.codecs_available:
            continue
        file = folder / (name.replace(".png", ".apng") if codec == "apng" else name)
        made[name] = encode(file, moving(), codec, pix_fmt, **({} if codec == "apng" else options))
    assert len(made) > 8
    return made


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_spread_evenly(whole, name):
    if name not in whole:
        pytest.skip("no encoder for it here")
    video = read_video(whole[name], 5)
    assert video.numbers == [0, 4, 9, 14, 19] and is_video(whole[name]) == (name not in ("a.gif", "a.png"))
    reds = [np.asarray(frame)[..., 0].mean() for frame in video.frames]
    assert np.abs(np.array(reds) - [10 + 12 * number for number in video.numbers]).max() < 20
    assert len(read_video(whole[name], 99).frames) == 20 and len(read_video(whole[name], 1).frames) == 1
    assert missing_bytes(whole[name]) == 0


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "a.mpg"])  # which may end in padding
def test_half_a_download_is_refused(whole, tmp_path, name, share):
    if name not in whole:
        pytest.skip("no encoder for it here")
    data = whole[name].read_bytes()
    file = tmp_path / name
    file.write_bytes(data[: int(len(data) * share)])
    for frames in (1, 3, 99):
        with pytest.raises(UnreadableVideo, match=name):
            read_video(file, frames)


def test_every_length_of_a_file_is_whole_or_refused(whole, tmp_path):
    """Also where it is cut between two parts: no video comes out shorter than it is."""
    for name in ("header-first.mp4", "a.mkv", "a.avi"):
        data = whole[name].read_bytes()
        file = tmp_path / name
        for length in range(len(data) - 1, len(data) // 2, -(len(data) // 60)):
            file.write_bytes(data[:length])
            try:
                video = read_video(file, 99)
            except UnreadableVideo:
                continue
            assert len(video.frames) == 20, (name, length, len(data))


def test_a_damaged_last_frame_is_refused(whole, tmp_path):
    """All that can be seen where a file does not say how long it is."""
    data, file, reasons = whole["a.mpg"].read_bytes(), tmp_path / "a.mpg", []
    for length in range(len(data) // 3, len(data), len(data) // 20):
        file.write_bytes(data[:length])
        try:
            read_video(file, 99)
        except UnreadableVideo as error:
            reasons.append(str(error))
    assert any("is damaged; download it again" in reason for reason in reasons)


def test_what_lies_behind_the_end_does_no_harm(whole, tmp_path):
    for name in ("a.mp4", "a.mkv", "a.avi", "a.gif"):
        file = tmp_path / name
        file.write_bytes(whole[name].read_bytes() + b"appended by somebody")
        assert len(read_video(file, 99).frames) == 20, name


def test_what_is_no_video(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all, but a text of some length" * 9)
    for name in ("empty.mp4", "text.mp4", "missing.mp4", ".", "x" * 300 + ".mp4", "a\0b.mp4"):
        with pytest.raises(UnreadableVideo) as error:
            read_video(tmp_path / name, 3)
        assert len(str(error.value)) < 700 and isinstance(error.value, sl.InputError)
    with pytest.raises(UnreadableImage):
        prompt_of_text("?", [tmp_path / "picture.png"], 3)


@pytest.mark.parametrize(
    ("kind", "options"), [("gif", {"disposal": 2}), ("webp", {"lossless": True}), ("png", {"disposal": 1})]
)
def test_animations(tmp_path, kind, options):
    """A picture that moves is a video where a video is asked for, else its first frame; transparent parts are white."""
    frames, wanted = [], np.full((4, 32, 32, 3), 255, np.uint8)
    for number in range(4):
        frame = np.zeros((32, 32, 4), np.uint8)
        frame[8 * number : 8 * number + 8], wanted[number, 8 * number : 8 * number + 8] = (255, 0, 0, 255), (255, 0, 0)
        if kind != "gif":  # which knows no half
            frame[:, 31], wanted[:, :, 31] = (0, 0, 255, 51), (204, 204, 255)
        frames.append(Image.fromarray(frame))
    moves, still = tmp_path / f"moves.{kind}", tmp_path / f"still.{kind}"
    frames[0].save(moves, save_all=True, append_images=frames[1:], duration=100, **options)
    frames[0].save(still)
    video = read_video(moves, 8)
    assert (np.asarray(video.frames) == wanted).all() and video.rate == 10
    assert read_video(moves, 2).numbers == [0, 3]
    (part, _) = prompt_of_text("?", [moves], 8).parts
    assert part["type"] == "image" and (np.asarray(part["image"]) == wanted[0]).all()
    for file, shows in ((moves, "video"), (still, "image")):
        message = {"role": "user", "content": [{"type": "video", "url": str(file)}]}
        (part,) = prompt_of_messages([message], 2).parts
        assert part["type"] == shows
    data = moves.read_bytes()
    for length in range(len(data) - 1, len(data) // 2, -7):
        moves.write_bytes(data[:length])
        with pytest.raises(UnreadableVideo, match="moves"):
            read_video(moves, 2)


@pytest.mark.parametrize("name", ["odd", "odd.bin", "odd.png", "odd.heic"])
def test_evaluation_takes_videos_for_videos(whole, tmp_path, name):
    for kind in ("a.mp4", "a.mkv", "a.avi"):
        (tmp_path / name).write_bytes(whole[kind].read_bytes())
        for visual in (tmp_path / name, str(tmp_path / name), f"file://{tmp_path / name}"):
            (part, _) = prompt_of_text("?", [visual], 4).parts
            assert part["type"] == "video" and len(part["video"].frames) == 4


OUTSIDE = ["../secret", "..", "a/../../secret", "/etc/secret", "sub/../../secret", "../videos/../secret"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_video_names_stay_in_their_folder(tmp_path, name):
    folder = tmp_path / "videos"
    folder.mkdir()
    (tmp_path / "secret.mp4").touch()
    with pytest.raises(sl.InputError, match=r"leads out of .*videos"):
        find_video(folder, name)
    with pytest.raises(sl.InputError, match=r"leads out of .*videos"):
        find_video(folder, str(tmp_path / "secret"))


def test_video_names_in_their_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.mp4", "sub/b.avi", "..c.mkv"):
        (tmp_path / name).touch()
    assert find_video(tmp_path, "sub/../a").name == "a.mp4" and find_video(tmp_path, "sub/b").name == "b.avi"
    assert find_video(tmp_path, "..c").name == "..c.mkv"
    for name in ("x" * 5000, "a\0b", "", ".", "\ud800"):
        with pytest.raises(sl.InputError, match="no video") as error:
            find_video(tmp_path, name)
        assert len(str(error.value)) < 700
