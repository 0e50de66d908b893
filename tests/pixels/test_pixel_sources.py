"""Where pictures come from, what is no picture, and how messages name it."""

import base64
import sys
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from pixel_files import shown, stored, written

import seeless as sl
from seeless.integrations.prompts import prompt_of_messages, prompt_of_text
from seeless.pixels import UnreadableImage, is_inline, is_video, load_image, local_file

PICTURE = Image.fromarray(shown())
DATA = written(PICTURE, "PNG")
TEXT = base64.b64encode(DATA).decode()
NAMES = ["plain.png", "ä b.png", "100%.png", "a?b.png", "a#b.png", "Bild.PNG", "without-suffix", "a,b;base64,c.png"]


def same(source) -> bool:
    return bool((np.asarray(load_image(source)) == shown()).all())


@pytest.mark.parametrize("name", NAMES)
def test_files(tmp_path, monkeypatch, name):
    file = tmp_path / name
    file.write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    path = quote(str(file))
    for source in (
        file,
        str(file),
        name,
        f"file://{path}",
        f"FILE://{path}",
        f"file://localhost{path}",
        f"file:{path}",
    ):
        assert same(source), source
    if "%" not in name:
        assert same(f"file://{file}")  # not escaped, as people write it


def test_texts_that_hold_a_picture():
    lines = "\n".join(TEXT[at : at + 60] for at in range(0, len(TEXT), 60))
    urlsafe = base64.urlsafe_b64encode(DATA).decode()
    escaped = "".join(f"%{byte:02x}" for byte in DATA)
    for source in (
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/png;charset=x;BASE64,{TEXT}",
        f"data:;base64,{TEXT.rstrip('=')}",
        f"data:image/png;base64,{quote(TEXT, safe='')}",
        f"data:image/png;base64,{lines}",
        f"data:image/jpeg;base64,{urlsafe}",  # the picture's own kind counts
        f"data:image/png,{escaped}",
        TEXT,
        lines,
        TEXT.rstrip("="),
        urlsafe,
        DATA,
    ):
        assert same(source), source[:40]
        assert isinstance(source, bytes) or (is_inline(source) and local_file(source) is None and not is_video(source))
    for kind in ("JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        assert is_inline(base64.b64encode(written(PICTURE, kind)).decode())
    assert not is_inline("photo.jpg") and not is_inline("A" * 200) and not is_inline("photos/2024/" * 10)


LONG = {
    "no picture": "data:image/png;base64," + "QUJD" * 7000,
    "no base64": "data:image/png;base64," + "é" * 28_000,
    "no comma": "data:image/png;base64;" + TEXT * 100,
    "half a picture": "data:image/png;base64," + base64.b64encode(DATA[:-40] + b"x" * 20_000).decode(),
    "plain, no picture": "QUJD" * 7000,
    "plain, half a picture": base64.b64encode(written(Image.effect_noise((200, 200), 99), "PNG")[:20_000]).decode(),
    "a path": "folder/" * 4000 + "x.png",
    "surrogates": "\ud800" * 1000,
    "lines": "first\nsecond\n" * 1000,
    "an address": "ftp://example.org/" + "x" * 28_000,
}


@pytest.mark.parametrize("source", LONG.values(), ids=LONG)
def test_messages_stay_short(source):
    with pytest.raises(UnreadableImage) as error:
        load_image(source)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)
    str(error.value).encode()


def test_what_cannot_be_found(tmp_path):
    for source, part in (
        ("missing.png", "'missing.png': No such file"),
        (tmp_path, "it is a folder"),
        ("/dev/null", "a device or a pipe"),
        ("a\0b.png", "null"),
        ("", "No such file"),
        ("file://missing.png", "file:///missing.png"),
        ("file://server/share/x.png", "'server' would be another machine"),
        ("ftp://example.org/x.png", "no way to fetch ftp:// addresses; possible are"),
        ("s3://bucket/x.png", "no way to fetch s3://"),
        (b"", "it is empty"),
    ):
        with pytest.raises(UnreadableImage) as error:
            load_image(source)
        assert part in str(error.value) and isinstance(error.value, sl.InputError)


SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'
NO_PICTURES = {
    "drawing.svg": (SVG, "an SVG drawing, which has no pixels; save it as PNG"),
    "commented.svg": (f'\ufeff<?xml version="1.0"?>\n<!-- by hand -->\n<!DOCTYPE svg PUBLIC "x">\n{SVG}', "an SVG"),
    "page.jpg": ("<!DOCTYPE html><html><body>404</body></html>", "a web page, not a picture"),
    "with-svg.html": (f"<html><body>{SVG}</body></html>", "a web page"),
    "page.pdf": ("%PDF-1.7\n1 0 obj", "a PDF document"),
    "figure.eps": ("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript drawing"),
    "text.png": ("just text", "cannot identify it as a picture"),
    "half.png": (DATA[:20], "it begins as PNG does, and is damaged or breaks off"),
    "clip.jpg": (b"\0\0\0\x18ftypisom\0\0\2\0isommp42", "it is a video"),
    "clip.png": (b"\x1aE\xdf\xa3\x9f", "it is a video"),
    "new.jxl": (b"\xff\x0a" + bytes(9), "a JPEG XL picture"),
}


@pytest.mark.parametrize(("name", "content"), NO_PICTURES.items(), ids=NO_PICTURES)
def test_what_is_no_picture(tmp_path, name, content):
    data, part = content
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(UnreadableImage, match=name) as error:
        load_image(tmp_path / name)
    assert part in str(error.value)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
AVIF = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(40)


def test_kinds_that_need_a_package(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(HEIC)
    (tmp_path / "a.jpg").write_bytes(AVIF)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImage, match=r'HEIC picture, which needs pillow-heif: pip install "seeless\[heif\]"'):
        load_image(tmp_path / "a.heic")
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    with pytest.raises(UnreadableImage, match="AVIF picture, which needs Pillow"):
        load_image(tmp_path / "a.jpg")


def shows(visual, kind: str | None = None):
    """The type and the picture or video of a part that is made of something."""
    if kind is None:
        return next(prompt_of_text("?", [visual], 8).parts)
    return next(prompt_of_messages([{"role": "user", "content": [{"type": kind, "url": visual}]}], 8).parts)


@pytest.mark.parametrize("kind", [None, "image", "video"])
def test_evaluation_takes_pictures_for_pictures(tmp_path, monkeypatch, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = written(Image.fromarray(stored(shown(), 6)), "PNG", exif=exif.tobytes())
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jp2", "c.bin", "d", "e.mp4"):
        (tmp_path / name).write_bytes(written(PICTURE, "JPEG2000") if name == "b.jp2" else turned)
        for visual in (name, tmp_path / name, f"file://{tmp_path / name}", {"path": name}):
            part = shows(visual, kind)
            assert part["type"] == "image" and (np.asarray(part["image"]) == shown()).all(), visual
    for visual in (f"data:image/png;base64,{TEXT}", TEXT, {"bytes": turned, "path": None}, Image.open("a.png")):
        part = shows(visual, kind)
        assert part["type"] == "image" and (np.asarray(part["image"]) == shown()).all()


@pytest.mark.parametrize("name", ["x.heic", "x.svg", "x.pdf", "x.avif", "x.jp2", "x.png", "x.JPG", "x.webp", "x.html"])
@pytest.mark.parametrize("content", [None, b"", b"neither"])
def test_evaluation_names_unreadable_pictures_as_pictures(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImage, match=name):
        shows(tmp_path / name)
    with pytest.raises(UnreadableImage, match=name):
        shows(str(tmp_path / name), "video")


def test_evaluation_names_svg_pdf_and_pages(tmp_path):
    for name, (data, part) in NO_PICTURES.items():
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
        if not name.startswith("clip"):
            with pytest.raises(UnreadableImage, match=name) as error:
                shows(tmp_path / name)
            assert part in str(error.value)
    with pytest.raises(UnreadableImage, match="no way to fetch s3://"):
        shows("s3://bucket/x.mp4")
    with pytest.raises(UnreadableImage, match="--allow-private-urls"):
        shows("http://127.0.0.1/x.mp4")


def test_frames_are_brought_to_rgb():
    frames = [Image.new("RGBA", (4, 4)), Image.fromarray(np.full((4, 4), 65535, np.uint16))]
    part = shows(frames)
    assert part["type"] == "video"
    assert [(frame.mode, frame.getpixel((0, 0))) for frame in part["video"].frames] == [("RGB", (255,) * 3)] * 2
