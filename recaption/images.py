"""Bytes of an unknown web image -> an upright RGB picture, or the reason why not."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from recaption.common.config import check_at_least

#: What the decoder may try; the extension in a tar is only a claim.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


@dataclass
class ImageConfig:
    #: Pictures with more pixels are not decoded (at most 178 million, Pillow's own limit).
    max_pixels: int = 89_478_485
    #: Longer sides are scaled down to this many pixels; 0 leaves the size as it is.
    max_side: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, {"images.max_pixels": self.max_pixels})
        check_at_least(0, {"images.max_side": self.max_side})


class BadImageError(Exception):
    """``code`` counts (``corrupt-image``); the message tells what happened."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@dataclass(frozen=True)
class DecodedImage:
    """An RGB picture, and whether it is only the first frame of several."""

    image: Image.Image
    is_animated: bool


def decode_image(data: bytes, config: ImageConfig) -> DecodedImage:
    """Decodes to RGB with the EXIF orientation applied and everything but the pixels left behind.

    16-bit pictures are scaled to 8 bits, transparency is laid on white, of an animation the first
    frame is taken.

    Raises:
        BadImageError: no bytes, not an image, damaged, or more than ``config.max_pixels``.
    """
    if not data:
        raise BadImageError("empty-image", "zero bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # The size stands in the header: check it before a byte of pixels is decoded.
            _check_size(image, config.max_pixels)
            is_animated = image.format != "MPO" and getattr(image, "is_animated", False)
            if config.max_side:
                image.draft(None, (config.max_side, config.max_side))
            rgb = to_upright_rgb(image)
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError("too-many-pixels", str(error)) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes.
        raise BadImageError("corrupt-image", f"{type(error).__name__}: {error}") from None
    if config.max_side and max(rgb.size) > config.max_side:
        rgb.thumbnail((config.max_side, config.max_side), Image.Resampling.LANCZOS)
    rgb.info = {}
    return DecodedImage(rgb, bool(is_animated))


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as ``decode_image`` gives it: upright, 8 bits, transparency on white."""
    return _to_rgb(_upright(image))


def encode_image(image: Image.Image, image_format: str, quality: int) -> bytes:
    """JPEG (full colour resolution up to 512 px a side, where halving it shows) or PNG bytes.

    Raises:
        BadImageError: what the format cannot hold; a side of a JPEG has at most 65,500 pixels.
    """
    buffer = io.BytesIO()
    try:
        if image_format == "png":
            image.save(buffer, "PNG", optimize=False)
        else:
            subsampling = "4:4:4" if max(image.size) <= 512 else "4:2:0"
            image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    except (OSError, ValueError) as error:
        size = "{} x {}".format(*image.size)
        raise BadImageError("cannot-encode", f"{size} as {image_format}: {error}") from None
    return buffer.getvalue()


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadImageError("too-many-pixels", f"{width} x {height}, the limit is {max_pixels}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except OSError:
        raise
    except Exception:  # unreadable EXIF is no reason to lose the picture
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255, which turns the picture white.
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    # A copy even of RGB: the file behind a lazily opened picture is closed on return.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()
