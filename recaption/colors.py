"""Pixels of any mode and colour profile -> RGB as screens show it (sRGB)."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

#: Profiles of printers have up to 3 MiB; a larger one is no profile.
MAX_PROFILE_BYTES = 4 * 2**20
#: A profile that moves no value by more is sRGB itself, and costs nothing then.
SAME_COLOR = 2
#: The colour space that a profile must be of, for each mode that ``flatten`` gives.
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def flatten(image: Image.Image) -> Image.Image:
    """As RGB, L (grey) or CMYK of 8 bits; 16 bits are scaled, transparency is laid on white.

    Raises:
        ValueError: a mode that cannot be shown, such as floating-point numbers.
    """
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255, which turns the picture white.
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of an unknown range")
    is_grey = image.mode in ("1", "L", "LA", "La")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        rgb = Image.alpha_composite(white, rgba).convert("RGB")
        return rgb.convert("L") if is_grey else rgb
    return image if image.mode in SPACES else image.convert("L" if is_grey else "RGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """A flattened picture as RGB, and whether ``profile`` was of use.

    A damaged profile, or one of another kind of picture, is left aside: the colours are then those
    that a viewer without colour management shows.
    """
    if not profile:
        return _as_rgb(image), True
    try:
        transform = _transform_of(profile, image.mode)
        if transform is not None:
            image = transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return _as_rgb(image), False
    return _as_rgb(image), True


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=32)
def _transform_of(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where the profile is sRGB's own. Raises: ValueError: damaged, or unfit for the mode."""
    if len(profile) > MAX_PROFILE_BYTES:
        raise ValueError("too large for a colour profile")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if source.profile.xcolor_space != SPACES[mode]:
        raise ValueError(f"a profile of {source.profile.xcolor_space} for a picture of {mode}")
    transform = ImageCms.ImageCmsTransform(
        source,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode != "CMYK":
        probe = _probe(mode)
        moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(moved).max() <= SAME_COLOR:
            return None
    return transform


def _probe(mode: str) -> Image.Image:
    """Colours from all over the cube."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    return Image.fromarray(cube).convert(mode)
