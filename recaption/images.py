"""Bytes of an unknown web image -> an upright RGB picture, or the reason why not."""

import io
import math
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from recaption.colors import flatten, to_srgb
from recaption.common.config import check_at_least
from recaption.image_formats import (
    ANIMATED_FORMATS,
    FORMATS,
    SlowImageError,
    check_jpeg_scans,
    check_png_chunks,
    name_format,
    without_ancillary_chunks,
)


@dataclass
class ImageConfig:
    #: Pictures with more pixels are not decoded (at most 178 million, Pillow's own limit).
    max_pixels: int = 89_478_485
    #: Larger files are not read.
    max_bytes: int = 64 * 2**20
    #: Pictures whose longer side has more than so many times the pixels of the shorter one are
    #: given up: models for images refuse them (Qwen-VL above 200). 0 takes any.
    max_aspect_ratio: float = 200.0
    #: Longer sides are scaled down to this many pixels; 0 leaves the size as it is.
    max_side: int = 0
    #: Pictures with more pixels are scaled down to at most so many; 0 leaves the size as it is.
    resize_pixels: int = 0

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes"):
            check_at_least(1, {f"images.{name}": getattr(self, name)})
        for name in ("max_aspect_ratio", "max_side", "resize_pixels"):
            check_at_least(0, {f"images.{name}": getattr(self, name)})


class BadImageError(Exception):
    """``code`` counts (``corrupt-image``); the message tells what happened."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@dataclass(frozen=True)
class DecodedImage:
    """An RGB picture, and what of the file is not in it."""

    image: Image.Image
    #: Codes for counting: ``animated`` (the first frame is taken), ``icc-profile-unusable``.
    notes: tuple[str, ...] = ()

    @property
    def is_animated(self) -> bool:
        return "animated" in self.notes


def decode_image(data: bytes, config: ImageConfig) -> DecodedImage:
    """Decodes to sRGB with the EXIF orientation applied and everything but the pixels left behind.

    16-bit pictures are scaled to 8 bits, transparency is laid on white, colour profiles are
    applied, of several frames or pages the first is taken. How long it can take is bounded by
    ``config.max_pixels`` and ``max_bytes``, by the chunks of a PNG and the scans of a JPEG.

    Raises:
        BadImageError: no bytes, not an image, damaged, or beyond the limits of ``config``.
    """
    if not data:
        raise BadImageError("empty-image", "zero bytes")
    check_num_bytes(len(data), config)
    try:
        try:
            return _decode(data, config)
        except ValueError:  # Pillow gives up a picture for a text or profile above 1 MiB
            plain = without_ancillary_chunks(data)
            if plain is None or len(plain) == len(data):
                raise
            return _decode(plain, config)
    except BadImageError:
        raise
    except SlowImageError as error:
        raise BadImageError("slow-image", str(error)) from None
    except Image.DecompressionBombError as error:
        raise BadImageError("too-many-pixels", str(error)) from None
    except UnidentifiedImageError:
        name = name_format(data)
        if name is None:
            raise BadImageError("corrupt-image", "no image, or damaged at its beginning") from None
        raise BadImageError("unsupported-format", name) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes.
        raise BadImageError("corrupt-image", f"{type(error).__name__}: {error}") from None


def check_num_bytes(num_bytes: int, config: ImageConfig) -> None:
    """Raises: BadImageError: more than ``config.max_bytes``."""
    if num_bytes > config.max_bytes:
        detail = f"{num_bytes} bytes, the limit is {config.max_bytes}"
        raise BadImageError("too-many-bytes", detail)


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as ``decode_image`` gives it: upright, sRGB, transparency on white."""
    rgb, _ = to_srgb(flatten(_upright(image)), image.info.get("icc_profile"))
    return rgb


def fit_size(size: tuple[int, int], config: ImageConfig) -> tuple[int, int]:
    """``size`` scaled down to ``max_side`` and ``resize_pixels``, never up; sides of 1 and more."""
    longer, shorter = max(size), min(size)
    fitted = min(longer, config.max_side or longer)
    if config.resize_pixels:
        fitted = min(fitted, max(1, math.isqrt(config.resize_pixels * longer // shorter)))
    width, height = (max(1, side * fitted // longer) for side in size)
    return width, height


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


def _decode(data: bytes, config: ImageConfig) -> DecodedImage:
    check_png_chunks(data)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # The size stands in the header: check it before a byte of pixels is decoded.
        check_size(image.size, config)
        check_jpeg_scans(data, image.size)
        is_animated = image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)
        profile = image.info.get("icc_profile")
        fitted = fit_size(image.size, config)
        if fitted != image.size:
            # A JPEG is decoded at a fraction of its size; twice what is needed looks the same.
            image.draft(None, (2 * fitted[0], 2 * fitted[1]))
        image.load()
        upright = _upright(image)
        if (image.width > image.height) != (upright.width > upright.height):
            fitted = fitted[::-1]
        flat = flatten(upright)
        if fitted != flat.size:
            flat = flat.resize(fitted, Image.Resampling.LANCZOS, reducing_gap=2.0)
        rgb, is_profile_used = to_srgb(flat, profile)
        if rgb is image:  # closed with its file
            rgb = image.copy()
    rgb.info = {}
    notes = {"animated": is_animated, "icc-profile-unusable": not is_profile_used}
    return DecodedImage(rgb, tuple(name for name, holds in notes.items() if holds))


def check_size(size: tuple[int, int], config: ImageConfig) -> None:
    """Raises: BadImageError: too many pixels, or too elongated."""
    width, height = size
    if width * height > config.max_pixels:
        raise BadImageError("too-many-pixels", f"{width} x {height}, limit {config.max_pixels}")
    limit = config.max_aspect_ratio
    if limit and max(size) > limit * min(size):
        raise BadImageError("too-elongated", f"{width} x {height}, limit 1 to {limit:g}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except OSError:
        raise
    except Exception:  # unreadable EXIF is no reason to lose the picture
        return image
