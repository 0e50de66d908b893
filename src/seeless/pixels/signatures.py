"""What the first bytes of a file say about it."""

import re

HEAD = 4096
RASTERS: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF.{4}WEBP", "WebP"),
    (rb"II\*\x00|MM\x00\*", "TIFF"),
    (rb"BM.{4}\x00{4}", "BMP"),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb".{0,1000}%PDF-", "PDF"),
)
BRANDS = {  # of ISO files that hold pictures
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"),
}
MARKUP = ("<?xml", "<!--", "<!doctype", "<html", "<head", "<body", "<script", "<svg")
VIDEOS: tuple[bytes, ...] = (
    rb"\x1aE\xdf\xa3",  # Matroska and WebM
    rb"RIFF.{4}(AVI |AMV )",
    rb".{4}(ftyp|styp|moov|moof|mdat|wide|pnot|free|skip)",  # MP4 and its relatives
    rb"FLV\x01",
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMV
    rb"\x00\x00\x01[\xba\xb3]",  # MPEG 1 and 2
    rb"OggS",
    rb"(.{4})?G.{187}(.{4})?G.{187}(.{4})?G",  # MPEG transport streams
)


def picture_kind(head: bytes) -> str | None:
    """The kind of picture or document that begins like this; None if it is none that is known.

    >>> picture_kind(b"GIF89a..."), picture_kind(b"<svg xmlns="), picture_kind(b"hello")
    ('GIF', 'SVG', None)
    """
    for pattern, name in RASTERS:
        if re.match(pattern, head, re.DOTALL):
            return name
    return _iso(head) or _markup(head)


def is_video_head(head: bytes) -> bool:
    """Whether a video file begins like this."""
    return picture_kind(head) is None and any(re.match(pattern, head, re.DOTALL) for pattern in VIDEOS)


def _iso(head: bytes) -> str | None:
    if head[4:8] != b"ftyp":
        return None
    end = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(end, len(head)), 4))]
    if brands[0] not in {brand for known in BRANDS.values() for brand in known}:
        return None  # a video, whatever it is compatible with
    return next(name for name, known in BRANDS.items() if set(brands) & set(known))


def _markup(head: bytes) -> str | None:
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    if not text.startswith(MARKUP):
        return None
    html = [text.find(tag) for tag in ("<!doctype html", "<html", "<head", "<body", "<script") if tag in text]
    if "<svg" in text and text.find("<svg") < min(html, default=len(text)):
        return "SVG"
    return "HTML" if html else None
