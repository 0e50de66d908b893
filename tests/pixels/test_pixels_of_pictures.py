"""What becomes of pixels, against arrays made by hand."""

import io
import struct
import threading

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile
from pixel_files import ORIENTATIONS, chunk, png, shown, stored, tiff, written

from seeless.pixels import UnreadableImage, load_image, to_rgb

WHITE = (255, 255, 255)
TURN = struct.pack("<HHII", 0x0112, 3, 1, 6)  # in EXIF


def pixels(data: bytes) -> np.ndarray:
    image = load_image(data)
    assert (image.mode, image.info, type(image)) == ("RGB", {}, Image.Image)
    return np.asarray(image)


def near(found: np.ndarray, wanted: np.ndarray, by: int) -> bool:
    return found.shape == wanted.shape and int(np.abs(found.astype(int) - wanted).max()) <= by


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("kind", "by"), [("PNG", 0), ("TIFF", 0), ("WEBP", 0), ("JPEG", 12), ("MPO", 12), ("AVIF", 30)]
)
def test_turned_by_exif(kind, by, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"} if by else {}
    if kind == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("Pillow without AVIF")
    data = written(Image.fromarray(stored(shown(), orientation)), kind, exif=exif.tobytes(), **options)
    assert near(pixels(data), shown(), by)
    opened = Image.open(io.BytesIO(data))
    assert near(np.asarray(to_rgb(opened)), shown(), by)
    once = Image.open(io.BytesIO(data)).convert("RGB")  # what tasks of lmms-eval hand over
    assert near(np.asarray(to_rgb(once)), shown(), by)
    assert near(np.asarray(to_rgb(to_rgb(once))), shown(), by)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0no TIFF at all",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0",
        b"Exif\0\0II*\0\x08\0\0\0\x02\0" + TURN + struct.pack("<HHI4s", 0x829A, 2, 2, b"x") + bytes(4),
    ],
    ids=["none", "cut", "a turn beside what Pillow cannot write again"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_no_reason_to_fail(block):
    data = written(Image.fromarray(stored(shown(), 6 if TURN in block else 1)), "PNG", exif=block)
    assert (pixels(data) == shown()).all()


GREY8 = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
DEEP = {
    "a photograph of 16 bits": (GREY8.astype(np.uint16) * 257, GREY8),
    "all of 16 bits": (np.linspace(0, 65535, 256).astype(np.uint16)[None], np.arange(256)[None]),
    "12 bits of 16": (np.linspace(0, 4095, 256).round().astype(np.uint16)[None], np.arange(256)[None]),
    "8 bits of 16": (GREY8.astype(np.uint16), GREY8),
    "constant 16 bits": (np.full((4, 4), 0x8080, np.uint16), np.full((4, 4), 0x80)),
    "black 16 bits": (np.zeros((4, 4), np.uint16), np.zeros((4, 4))),
    "white 16 bits": (np.full((4, 4), 65535, np.uint16), np.full((4, 4), 255)),
    "signed 16 bits": (np.linspace(-1000, 3000, 256).round().astype(np.int16)[None], np.arange(256)[None]),
    "32 bits": (np.linspace(0, 1_000_000, 256).astype(np.int32)[None], np.arange(256)[None]),
    "all of 32 bits": (np.linspace(-(2**31), 2**31 - 1, 256).astype(np.int32)[None], np.arange(256)[None]),
    "unsigned 32 bits": (np.linspace(0, 2**32 - 1, 256).astype(np.uint32)[None], np.arange(256)[None]),
    "8 bits of 32": (GREY8.astype(np.int32), GREY8),
    "constant 32 bits": (np.full((4, 4), -7, np.int32), np.zeros((4, 4))),
    "floats up to 1": ((GREY8 / 255).astype(np.float32), GREY8),
    "floats of any size": (np.linspace(-3, 7, 256).astype(np.float32)[None], np.arange(256)[None]),
    "small floats": (np.linspace(0, 1e-4, 256).astype(np.float32)[None], np.arange(256)[None]),
    "huge floats": (np.linspace(-3e38, 3e38, 256).astype(np.float32)[None], np.arange(256)[None]),
    "constant floats": (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 128)),
}


@pytest.mark.parametrize(("values", "grey"), DEEP.values(), ids=DEEP)
def test_deep_greys_by_their_range(values, grey):
    samples = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    wanted = np.repeat(grey[:, :, None], 3, 2)
    assert near(pixels(tiff(values, samples)), wanted, 1)
    if samples != 2 and values.dtype != np.uint32:
        assert near(pixels(tiff(values, samples, photometric=0)), 255 - wanted, 1)  # white is zero
    if values.dtype == np.uint16:
        rows = [row.astype(">u2").tobytes() for row in values]
        assert near(pixels(png(values.shape[1], 16, 0, rows)), wanted, 1)
        assert near(pixels(written(Image.fromarray(values), "JPEG2000")), wanted, 1)
        head = f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode()
        assert near(pixels(head + values.astype(">u2").tobytes()), wanted, 1)
        big = Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())
        assert near(np.asarray(to_rgb(big)), wanted, 1)
    if values.dtype in (np.int32, np.float32):
        assert near(np.asarray(to_rgb(Image.fromarray(values))), wanted, 1)


def test_greys_that_are_no_numbers_are_refused():
    values = np.array([[0.0, np.nan], [np.inf, 1.0]], np.float32)
    with pytest.raises(UnreadableImage, match=r"2 of its 4 values are not finite"):
        load_image(tiff(values, 3))


def on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


RGBA = np.dstack([shown(), np.linspace(0, 255, 24 * 40).reshape(24, 40).astype(np.uint8)])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "TGA"])
def test_transparent_parts_become_white(kind):
    data = written(Image.fromarray(RGBA), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert near(pixels(data), on_white(RGBA), 1)


def test_black_writing_on_a_transparent_background_stays_readable():
    drawing = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (5, 2, 9, 8))
    wanted = np.full((10, 20, 3), 255)
    wanted[2:8, 5:9] = 0
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "ICO"):
        options = {"sizes": [(20, 10)]} if kind == "ICO" else {}
        assert (pixels(written(drawing, kind, **options)) == wanted).all(), kind
    palette = drawing.convert("RGB").convert("P")
    palette.putalpha(drawing.getchannel("A"))
    assert palette.mode == "PA"
    for image in (drawing, drawing.convert("LA"), drawing.convert("RGBa"), palette, drawing.convert("P")):
        assert (np.asarray(to_rgb(image)) == wanted).all(), image.mode


def grey_rows(*values: int, depth: int) -> list[bytes]:
    bits = "".join(f"{value:0{depth}b}" for value in values)
    return [int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")]


KEYED = {
    "1 bit": (png(2, 1, 0, grey_rows(1, 0, depth=1), (b"tRNS", b"\0\0")), [[255] * 3, WHITE]),
    "2 bits": (png(4, 2, 0, grey_rows(0, 1, 2, 3, depth=2), (b"tRNS", b"\0\2")), [[0] * 3, [85] * 3, WHITE, WHITE]),
    "4 bits": (png(3, 4, 0, grey_rows(3, 4, 15, depth=4), (b"tRNS", b"\0\3")), [WHITE, [68] * 3, WHITE]),
    "8 bits": (png(2, 8, 0, [b"\3\4"], (b"tRNS", b"\0\3")), [WHITE, [4] * 3]),
    "16 bits": (png(2, 16, 0, [b"\x80\x80\0\0"], (b"tRNS", b"\0\0")), [[128] * 3, WHITE]),
    "colour": (png(2, 8, 2, [b"\1\2\3\4\5\6"], (b"tRNS", b"\0\1\0\2\0\3")), [WHITE, [4, 5, 6]]),
    "deep colour": (
        png(
            2, 16, 2, [struct.pack(">6H", 256, 512, 768, 65535, 0, 4096)], (b"tRNS", struct.pack(">3H", 256, 512, 768))
        ),
        [WHITE, [255, 0, 16]],
    ),
    "bright deep colour": (
        png(2, 16, 2, [struct.pack(">6H", 65535, 0, 0, 256, 0, 4096)], (b"tRNS", struct.pack(">3H", 65535, 0, 0))),
        [WHITE, [1, 0, 16]],
    ),
    "palette": (
        png(3, 8, 3, [b"\0\1\2"], (b"PLTE", bytes([0, 0, 0, 10, 20, 30, 200, 0, 0])), (b"tRNS", b"\0\x80")),
        [WHITE, [132, 137, 142], [200, 0, 0]],
    ),
    "grey with alpha, 16 bits": (png(2, 16, 4, [struct.pack(">4H", 0, 0, 0, 65535)]), [WHITE, [0] * 3]),
}


@pytest.mark.parametrize(("data", "wanted"), KEYED.values(), ids=KEYED)
def test_a_transparent_colour_becomes_white(data, wanted):
    assert near(pixels(data), np.array([wanted]), 1)
    loaded = Image.open(io.BytesIO(data))
    assert near(np.asarray(to_rgb(loaded)), np.array([wanted]), 1)


def test_other_colours():
    plain = Image.fromarray(shown())
    assert near(np.asarray(to_rgb(plain.convert("CMYK"))), shown(), 1)
    assert near(np.asarray(to_rgb(plain.convert("HSV"))), shown(), 8)
    assert near(np.asarray(to_rgb(plain.convert("YCbCr"))), shown(), 4)
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    assert near(
        np.asarray(to_rgb(ImageCms.applyTransform(plain, transform))), shown(), 30
    )  # deep blue is outside of what 8 bits of Lab hold
    for kind in ("TIFF", "JPEG"):  # a JPEG of CMYK is written upside down, as Adobe does
        assert near(
            pixels(written(plain.convert("CMYK"), kind, **({"quality": 100} if kind == "JPEG" else {}))), shown(), 12
        )
    ramp = Image.fromarray(GREY8)
    for image in (ramp, ramp.convert("P"), ramp.convert("RGB")):
        assert (pixels(written(image, "PNG")) == GREY8[:, :, None]).all()
    bits = np.array([[0, 1, 1], [1, 0, 0]], bool)
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        assert (pixels(written(Image.fromarray(bits), kind)) == bits[:, :, None] * np.uint8(255)).all()


def test_what_is_rgb_is_left_alone():
    plain = Image.fromarray(shown())
    for kind in ("PNG", "BMP", "TIFF", "PPM", "TGA"):
        assert (pixels(written(plain, kind)) == shown()).all()
    same = to_rgb(plain)
    assert same is not plain and (np.asarray(same) == shown()).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames(kind):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    data = written(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (pixels(data) == (255, 0, 0)).all()
    later = Image.open(io.BytesIO(data))
    later.seek(1)
    assert (np.asarray(to_rgb(later)) == (0, 255, 0)).all()


def noise(mode: str) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).convert(mode)


BROKEN_OFF = {
    "PNG": written(noise("RGB"), "PNG"),
    "JPEG": written(noise("RGB"), "JPEG"),
    "progressive JPEG": written(noise("RGB"), "JPEG", progressive=True),
    "GIF": written(noise("P"), "GIF"),
    "WEBP": written(noise("RGB"), "WEBP"),
    "BMP": written(noise("RGB"), "BMP"),
    "TIFF": written(noise("RGB"), "TIFF", compression="tiff_lzw"),
    "JPEG2000": written(noise("RGB"), "JPEG2000"),
    "PPM": written(noise("RGB"), "PPM"),
    "TGA": written(noise("RGB"), "TGA"),
}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("name", "data"), BROKEN_OFF.items(), ids=BROKEN_OFF)
def test_what_breaks_off_is_refused(tmp_path, monkeypatch, name, data, share):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval leaves it
    file = tmp_path / "half.png"
    file.write_bytes(data)
    load_image(file)
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableImage, match=r"cannot read the picture .*half\.png'?:"):
        load_image(file)
    try:
        lazy = Image.open(file)
    except OSError:
        lazy = None
    if lazy is not None:
        with pytest.raises(UnreadableImage, match=r"cannot read the picture .*half\.png'?:"):
            to_rgb(lazy)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_threads_do_not_undo_each_others_care(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole, half = BROKEN_OFF["JPEG"], BROKEN_OFF["JPEG"][:900]
    taken = []

    def load() -> None:
        for _ in range(60):
            load_image(whole)
            try:
                load_image(half)
                taken.append("half a picture")
            except UnreadableImage:
                pass

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [] and ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_sizes(monkeypatch):
    with pytest.raises(UnreadableImage, match="cannot read the picture"):
        load_image(png(0, 8, 0, [b""]))
    for size in ((0, 5), (5, 0)):
        with pytest.raises(UnreadableImage, match=r"it has no pixels"):
            to_rgb(Image.new("RGB", size))
    bomb = png(30_000, 1, 0, [], height=30_000)
    with pytest.raises(UnreadableImage, match="could be decompression bomb"):
        load_image(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as tasks with huge pictures leave it
    with pytest.raises(UnreadableImage, match=r"30000x30000 pixels, more than 178,956,970"):
        load_image(bomb)


def test_a_preview_is_not_taken_for_the_picture():
    """The first picture of most cameras' raw files is a small preview."""
    with pytest.raises(UnreadableImage, match="preview of another"):
        load_image(tiff(GREY8, 1, t254=1))
    assert (pixels(tiff(GREY8, 1, t254=0)) == GREY8[:, :, None]).all()


def test_text_in_a_png_changes_nothing():
    data = png(2, 8, 0, [b"\3\4"], (b"tEXt", b"Comment\0" + b"x" * 100))
    assert pixels(data).tolist() == [[[3] * 3, [4] * 3]]
    damaged = data.replace(chunk(b"tEXt", b"Comment\0" + b"x" * 100)[-4:], b"????")
    with pytest.raises(UnreadableImage):
        load_image(damaged)


def test_heic():
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    heif.register_heif_opener()
    for orientation in ORIENTATIONS:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(stored(shown(48, 80), orientation))
        data = written(image, "HEIF", quality=-1, chroma=444, exif=exif.tobytes())
        assert near(pixels(data), shown(48, 80), 8), orientation
        assert near(np.asarray(to_rgb(Image.open(io.BytesIO(data)))), shown(48, 80), 8)
        with pytest.raises(UnreadableImage):
            load_image(data[: len(data) * 2 // 3])
