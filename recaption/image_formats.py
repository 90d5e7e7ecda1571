"""Which image formats are read, what other bytes are, and which pictures would take minutes.

The decoder may try only formats that the web shows; the extension in a tar is only a claim.
"""

import importlib.util
from collections.abc import Iterator

from PIL import features

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF")
if importlib.util.find_spec("pi_heif") is not None:
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    FORMATS = (*FORMATS, "HEIF")

#: Formats that can hold more than one frame; the first is taken.
ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
#: Pixels times scans of a JPEG. Each scan of a progressive one goes over all of the picture, and
#: its scans may have ten bytes each; honest ones have about ten scans.
MAX_SCANNED_PIXELS = 2_000_000_000
#: Chunks of a PNG; Pillow takes 5 microseconds for each.
MAX_PNG_CHUNKS = 100_000
#: What reads a format where it is not read.
DECODERS = {"HEIF": "pip install pi-heif", "AVIF": "pip install 'pillow>=11.3'"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: The chunks of a PNG that decide how its pixels look, or how many pictures there are.
PNG_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL"}

#: (offset, bytes there, what it is); the first that fits.
SIGNATURES = (
    (4, b"ftyphei", "HEIF"),
    (4, b"ftyphev", "HEIF"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyp", "a video (MP4 or QuickTime)"),
    (0, b"\x1a\x45\xdf\xa3", "a video (WebM or Matroska)"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"PK\3\4", "a zip file"),
)


class SlowImageError(Exception):
    """The picture is small enough, yet reading it would take very long."""


def readable_formats() -> set[str]:
    """Those of ``FORMATS`` that the installed libraries read."""
    return {name for name in FORMATS if name != "AVIF" or features.check("avif")}


def name_format(data: bytes) -> str | None:
    """What bytes are that are no picture of ``FORMATS``; None for a damaged one, and for noise."""
    for offset, signature, name in SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            decoder = DECODERS.get(name)
            if decoder is None:
                return name
            return None if name in readable_formats() else f"{name}: {decoder}"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n\0").lower()
    if b"<svg" in head:
        return "SVG, a drawing without pixels"
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "an HTML page"
    if head.startswith(b"<"):
        return "XML or HTML"
    if head.startswith((b"{", b"[")):
        return "JSON"
    return "text" if head and head.isascii() and b"\0" not in head else None


def check_png_chunks(data: bytes) -> None:
    """Raises: SlowImageError: more chunks than any picture needs."""
    if data.startswith(PNG_SIGNATURE):
        for number, _ in enumerate(_png_chunks(data), 1):
            if number > MAX_PNG_CHUNKS:
                raise SlowImageError(f"more than {MAX_PNG_CHUNKS} chunks")


def check_jpeg_scans(data: bytes, size: tuple[int, int]) -> None:
    """Raises: SlowImageError: more scans over the picture than any needs."""
    if data.startswith(b"\xff\xd8"):
        # Inside of a scan a byte 0xff is followed by 0, so that this counts the starts of scans.
        num_scans = data.count(b"\xff\xda")
        if num_scans * size[0] * size[1] > MAX_SCANNED_PIXELS:
            raise SlowImageError(f"{num_scans} scans of {size[0]} x {size[1]} pixels")


def without_ancillary_chunks(data: bytes) -> bytes | None:
    """A PNG without texts and profiles, which Pillow refuses above 1 MiB; None for other files."""
    if not data.startswith(PNG_SIGNATURE):
        return None
    kept = [data[start:end] for name, start, end in _png_chunks(data) if name in PNG_PIXEL_CHUNKS]
    return PNG_SIGNATURE + b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk; the last one may end behind the data."""
    start = len(PNG_SIGNATURE)
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        yield data[start + 4 : start + 8], start, end
        start = end
