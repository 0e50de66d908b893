"""Whether a video file is all there, by what its own structure promises."""

import os
from collections.abc import Callable
from typing import BinaryIO

MEDIA = (b"moov", b"moof", b"mdat")  # boxes of MP4 without which frames are missing
UNKNOWN = (0, 0xFFFFFFFF)  # sizes of RIFF files that were never finished
SEGMENT = 0x18538067  # of Matroska
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_BROADCAST = 1


def missing_bytes(path: str | os.PathLike[str]) -> int:
    """How many bytes a video file lacks at its end, at least: 0 if it is whole, or of a kind that does not say.

    MP4 and its relatives, Matroska and WebM, AVI, WebP, WMV, FLV, GIF and PNG say; of MPEG transport streams only the
    last packet can be seen to break off.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        return max(0, _reader(head)(file, size) - size)


def _reader(head: bytes) -> Callable[[BinaryIO, int], int]:
    """What finds the place up to which a file should go."""
    if head.startswith(b"\x1aE\xdf\xa3"):
        return _matroska
    for start, reader in ((b"RIFF", _riff), (b"\x30\x26\xb2\x75", _asf), (b"FLV", _flv), (b"GIF8", _gif)):
        if head.startswith(start):
            return reader
    return _png if head.startswith(b"\x89PNG") else _boxes if head[4:8].isalnum() else _packets


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _boxes(file: BinaryIO, size: int) -> int:
    at = end = 0
    while at + 8 <= size:
        head = _at(file, at, 16)
        length, kind = _number(head[:4]), head[4:8]
        length = _number(head[8:16]) if length == 1 else length
        if length < 8:  # 0: up to the end
            break
        at += length
        end = at if kind in MEDIA else end
    return end


def _matroska(file: BinaryIO, size: int) -> int:
    at = end = 0
    while at < size:
        name, after, _ = _varint(_at(file, at, 8), keep_marker=True)
        length, more, unknown = _varint(_at(file, at + after, 8))
        if not after or not more:
            return size + 1
        at += after + more
        if not unknown:
            at += length
            end = at
            if name == SEGMENT:
                break
    return end


def _varint(data: bytes, keep_marker: bool = False) -> tuple[int, int, bool]:
    """A number of Matroska, how many bytes it takes (0: it is not all there), and whether it means "unknown"."""
    width = 9 - data[0].bit_length() if data and data[0] else 0
    if not 0 < width <= len(data):
        return 0, 0, False
    value, marker = _number(data[:width]), 1 << (7 * width)
    return (value if keep_marker else value - marker), width, value == 2 * marker - 1


def _riff(file: BinaryIO, size: int) -> int:
    at = end = 0
    while (head := _at(file, at, 8))[:4] == b"RIFF" and len(head) == 8:
        length = int.from_bytes(head[4:], "little")
        if length in UNKNOWN:
            break
        end = at + 8 + length
        at = end + length % 2
    return end - 1 if end == size + 1 else end  # programs differ in counting the last padding byte


def _asf(file: BinaryIO, size: int) -> int:
    data = file.read(2**16)
    at = data.find(ASF_FILE)
    if at < 0 or int.from_bytes(data[at + 88 : at + 92], "little") & ASF_BROADCAST:
        return 0
    return int.from_bytes(data[at + 40 : at + 48], "little")


def _flv(file: BinaryIO, size: int) -> int:
    at = _number(_at(file, 5, 4)) + 4
    while at < size:
        head = _at(file, at, 4)
        at += 11 + _number(head[1:]) + 4
    return at


def _gif(file: BinaryIO, size: int) -> int:
    flags = _at(file, 10, 1)[0] if size > 10 else 0
    at = 13 + _colours(flags)
    while (kind := _at(file, at, 1)) != b";" and at < size:
        if kind == b",":
            description = _at(file, at, 10)
            at += 11 + (_colours(description[9]) if len(description) == 10 else 0)
        elif kind == b"!":
            at += 2
        else:  # no block: programs that write such files cannot be relied on
            return 0
        while len(length := _at(file, at, 1)) == 1 and length[0]:
            at += 1 + length[0]
        at += 1
    return at + 1


def _packets(file: BinaryIO, size: int) -> int:
    """Of a transport stream, whose packets begin with "G"; 0 of whatever else has no structure known here."""
    for before, length in ((0, 188), (4, 192), (0, 204)):
        if all(_at(file, before + number * length, 1) == b"G" for number in range(3)):
            return -(-size // length) * length
    return 0


def _colours(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _png(file: BinaryIO, size: int) -> int:
    at = 8
    while len(head := _at(file, at, 8)) == 8:
        at += 12 + _number(head[:4])
        if head[4:] == b"IEND":
            return at
    return max(at, size + 1)


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
