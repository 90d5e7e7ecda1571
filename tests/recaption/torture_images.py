"""Pictures as the web has them: odd, damaged, hostile. Of each: its bytes, and what becomes of it.

``OK`` stands for a picture that is read; else the code of the reason why not.
"""

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.recaption.shard_files import picture, to_bytes

OK = "ok"
SVG = b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><circle r='4'/></svg>"
HTML = b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>"
#: ``picture()`` by libheif; the library that reads it here cannot write it.
HEIC = base64.b64decode(
    """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA
AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAAVIAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo
dmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA
GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAAD
AIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAKAAAAAEA
AAAeAAAAAf///+gAAAAC////3gAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAABWm1k
YXQAAAFOKAGvCcgi+bQyI5iVv5Dz/56tNGHJ3OHddrTHkqZlqVH8pA5GXYA83A3Bsstpc5iemz8cYQTyab2EL/wRwAYN
iU/K4nu+orvH/sUlKuHs1ZGdJiWH/5y6D9N97MS061eDfQW3+j0oMKPKMmO7dmMOtvYFhDkf7an1Ai1+L5+BL2r3a2fI
1el/JXxE5qKKH+8pog9J2tHLz+hH3gmYAo0lIcvapTCl+YgyqjcSaTt4Trf3pvYdgQAbDeV26dQtshdQfXP06TTXv+im
xO7lXDGfquMw5HXgzioOsAsZ+s4XaLQ0Zyt3Qlfj/ZjmxOykZoEHwlQjxB36D4DtQde69QWzAvAQQ1lefb8L/OetCWC5
2UJFaMSFT3+Ck4y90gByjCFRnSXal8sMoa/Ylo+GsGkP9OM368V3QPpEeN2TvN4uxp7QEjryAC3Xqv96SzTQYA==
"""
)
#: EXIF tag of the orientation, and how its value is undone.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # what 270 degrees turn upright again
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def troubles() -> Iterator[tuple[str, bytes, str]]:
    """Name with extension, bytes, and the verdict."""
    yield from formats()
    yield from modes()
    yield from profiles()
    yield from bombs()
    yield from shapes()
    yield from damaged()


def formats() -> Iterator[tuple[str, bytes, str]]:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "green", "blue")]
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"):
        yield f"plain_{form.lower()}.{form.lower()}", to_bytes(picture(), form), OK
    for form in ("PNG", "WEBP", "GIF", "AVIF", "TIFF"):
        data = to_bytes(frames[0], form, save_all=True, append_images=frames[1:])
        yield f"frames_{form.lower()}.{form.lower()}", data, OK
    yield "mpo.jpg", to_bytes(picture(), "MPO", save_all=True, append_images=[picture(1)]), OK
    yield "progressive.jpg", to_bytes(picture(size=(300, 200)), progressive=True), OK
    yield "heic.heic", HEIC, OK
    yield "heic_named.jpg", HEIC, OK
    yield "png_named.jpg", to_bytes(picture(), "PNG"), OK
    yield "svg.svg", SVG, "unsupported-format"
    yield "svg_named.png", SVG, "unsupported-format"
    yield "html.jpg", HTML, "unsupported-format"
    yield "error.jpg", b'{"error": "access denied"}', "unsupported-format"
    yield "message.jpg", b"Not found", "unsupported-format"
    yield "jxl.jxl", b"\xff\x0a" + bytes(40), "unsupported-format"
    yield "jp2.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "unsupported-format"
    yield "icon.ico", to_bytes(picture(), "ICO"), "unsupported-format"
    yield "pdf.jpg", to_bytes(picture(), "PDF"), "unsupported-format"
    yield "video.jpg", b"\0\0\0\x20ftypisom" + bytes(40), "unsupported-format"
    yield "noise.jpg", np.random.default_rng(0).bytes(500), "corrupt-image"


def modes() -> Iterator[tuple[str, bytes, str]]:
    for orientation in range(1, 9):
        yield f"orientation_{orientation}.jpg", oriented(orientation, "JPEG"), OK
    yield "orientation_bad.jpg", to_bytes(picture(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), OK
    yield "grey_alpha.png", to_bytes(picture().convert("LA"), "PNG"), OK
    yield "rgba.png", to_bytes(picture().convert("RGBA"), "PNG"), OK
    yield "palette.png", to_bytes(picture().convert("P"), "PNG", transparency=3), OK
    yield "palette.gif", to_bytes(picture().convert("P"), "GIF", transparency=3), OK
    yield "bilevel.png", to_bytes(picture().convert("1"), "PNG"), OK
    yield "grey.jpg", to_bytes(picture().convert("L")), OK
    yield "grey16.png", to_bytes(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"), OK
    yield "rgb16.png", png(9, 9, 16, bytes(9 * (1 + 6 * 9))), OK
    yield "cmyk.jpg", to_bytes(picture().convert("CMYK")), OK
    yield "ycck.jpg", ycck_of_red(), OK
    yield "float.tiff", to_bytes(Image.new("F", (9, 9), 0.5), "TIFF"), "corrupt-image"


def profiles() -> Iterator[tuple[str, bytes, str]]:
    for name, profile in (("swapped", swapped_profile()), ("broken", b"no profile" * 20)):
        yield f"icc_{name}.jpg", to_bytes(picture(), icc_profile=profile), OK
        yield f"icc_{name}.png", to_bytes(picture(), "PNG", icc_profile=profile), OK
    srgb = srgb_profile()
    yield "icc_srgb.jpg", to_bytes(picture(), icc_profile=srgb), OK
    yield "icc_cut.jpg", to_bytes(picture(), icc_profile=srgb[: len(srgb) // 2]), OK
    yield "icc_unfit.jpg", to_bytes(picture().convert("CMYK"), icc_profile=srgb), OK
    large = zlib.compress(bytes(50 * 2**20), 9)
    pixels = bytes(8 * 25)
    yield "icc_huge.png", png(8, 8, 8, pixels, chunk(b"iCCP", b"a\0\0" + large)), OK
    yield "text_huge.png", png(8, 8, 8, pixels, chunk(b"zTXt", b"a\0\0" + large)), OK


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Small files that claim many pixels, hold many, or take long."""
    yield "bomb_claimed.png", png(100_000, 100_000, 8, b""), "too-many-pixels"
    wide = Image.new("1", (12_000, 12_000))
    yield "bomb.png", to_bytes(wide, "PNG"), "too-many-pixels"
    yield "bomb.tiff", to_bytes(wide, "TIFF", compression="group4"), "too-many-pixels"
    webp = bytearray(to_bytes(picture(), "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"  # 14 bits each for width and height
    yield "bomb.webp", bytes(webp), "too-many-pixels"
    gif = bytearray(to_bytes(picture(), "GIF"))
    screen = struct.pack("<HH", *picture().size)
    yield "bomb_screen.gif", bytes(gif).replace(screen, b"\xff" * 4, 1), "too-many-pixels"
    frame = b"," + bytes(4) + screen
    yield "bomb_frame.gif", bytes(gif).replace(frame, frame[:5] + b"\xff" * 4), "too-many-pixels"
    bmp = bytearray(to_bytes(picture(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 30_000, 30_000)
    yield "bomb.bmp", bytes(bmp), "too-many-pixels"
    many = chunk(b"teSt", b"") * 100_001
    yield "chunks.png", png(8, 8, 8, bytes(8 * 25), many), "slow-image"
    yield "scans.jpg", many_scans(2_500), "slow-image"


def shapes() -> Iterator[tuple[str, bytes, str]]:
    for size in ((1, 1), (3, 1), (1, 3), (3, 3), (1, 200), (200, 1), (7, 1_000), (4_000, 20)):
        yield "size_{}x{}.png".format(*size), to_bytes(picture(size=size), "PNG"), OK
    for size in ((1, 201), (1, 10_000), (10_000, 1), (65_000, 1)):
        yield "size_{}x{}.png".format(*size), to_bytes(picture(size=size), "PNG"), "too-elongated"


def damaged() -> Iterator[tuple[str, bytes, str]]:
    whole = to_bytes(picture(size=(200, 150)))
    yield "cut_at_0.jpg", b"", "empty-image"
    for num_bytes in (1, 2, 3, 10, 20, *range(50, len(whole) - 50, len(whole) // 15)):
        yield f"cut_at_{num_bytes}.jpg", whole[:num_bytes], "corrupt-image"
    yield "tail.jpg", whole + b"<!-- served by -->" * 100, OK
    for form in ("PNG", "WEBP", "GIF", "AVIF"):
        data = to_bytes(picture(size=(200, 150)), form)
        yield f"half_{form.lower()}.{form.lower()}", data[: len(data) // 2], "corrupt-image"
    yield "half_heic.heic", HEIC[: len(HEIC) // 2], "corrupt-image"


def oriented(orientation: int, form: str, **options: Any) -> bytes:
    """``picture()``, stored turned, with the tag that turns it upright again."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turn = TURNS.get(orientation)
    stored = picture() if turn is None else picture().transpose(turn)
    return to_bytes(stored, form, exif=exif, **options)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """By which the red of a file is green."""
    return (
        srgb_profile().replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    )


def ycck_of_red() -> bytes:
    """Pillow writes no YCCK: the inks of red as Y, Cb and Cr in channels of CMYK, and the marker.

    The inks (0, 1, 1) of red stand there as the colour (0, 255, 255), and Pillow inverts CMYK.
    """
    stored = Image.new("CMYK", (16, 16), (255 - 179, 255 - 171, 255, 0))
    data = to_bytes(stored, quality=100)
    marker = data.index(b"Adobe") + len(b"Adobe") + 6
    return data[:marker] + b"\2" + data[marker + 1 :]


def many_scans(num_scans: int) -> bytes:
    """A progressive JPEG whose last scan stands there again and again."""
    data = to_bytes(Image.new("RGB", (1_000, 1_000), "red"), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * num_scans + data[-2:]


def png(width: int, height: int, depth: int, pixels: bytes, extra: bytes = b"") -> bytes:
    """RGB; ``pixels`` with a filter byte before each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
