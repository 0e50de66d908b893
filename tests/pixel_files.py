"""Pictures whose pixels are known, and files of them written by hand where Pillow would write another kind."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

# EXIF's table: what the stored rows and columns begin at, as shown.
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def shown(height=24, width=40) -> np.ndarray:
    """`[height, width, 3]` without any symmetry: a block of another colour in every corner."""
    array = np.zeros((height, width, 3), np.uint8)
    array[: height // 2, : width // 2] = (250, 10, 20)
    array[: height // 2, width // 2 :] = (10, 240, 30)
    array[height // 2 :, : width // 2] = (20, 30, 230)
    array[height // 2 :, width // 2 :] = (200, 200, 40)
    return array


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """The array as a camera stores it that says it is to be shown by `orientation`."""
    rows, columns = ORIENTATIONS[orientation]
    turned = np.swapaxes(array, 0, 1) if rows in ("left", "right") else array
    turned = turned[::-1] if rows in ("bottom", "right") else turned
    return np.ascontiguousarray(turned[:, ::-1] if columns in ("bottom", "right") else turned)


def written(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, depth: int, colour: int, rows: list[bytes], *chunks: tuple[bytes, bytes], height=None) -> bytes:
    """A PNG of rows of raw samples."""
    header = struct.pack(">IIBBBBB", width, len(rows) if height is None else height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(array: np.ndarray, samples: int, photometric: int = 1, **more: int) -> bytes:
    """An uncompressed little-endian TIFF of one grey band.

    Args:
        samples: how numbers are written: 1 unsigned, 2 signed, 3 floats.
        more: further tags by number, `t254=1`.
    """
    array = array.astype(array.dtype.newbyteorder("<"))
    data = array.tobytes()
    tags = {256: array.shape[1], 257: array.shape[0], 258: 8 * array.itemsize, 259: 1, 262: photometric, 273: 8}
    tags |= {277: 1, 278: array.shape[0], 279: len(data), 339: samples} | {int(k[1:]): v for k, v in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
