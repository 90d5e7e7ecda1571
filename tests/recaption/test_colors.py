import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from recaption.colors import flatten, to_srgb
from recaption.images import ImageConfig, decode_image
from tests.recaption.shard_files import picture, to_bytes
from tests.recaption.torture_images import srgb_profile, swapped_profile


def decode(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    decoded = decode_image(data, ImageConfig())
    return np.asarray(decoded.image).astype(int), decoded.notes


def test_a_profile_is_applied() -> None:
    swapped = np.asarray(picture())[..., [1, 0, 2]].astype(int)
    values, notes = decode(to_bytes(picture(), "PNG", icc_profile=swapped_profile()))
    assert abs(values - swapped).mean() < 8 and notes == ()
    transparent = picture().convert("RGBA")
    values, _ = decode(to_bytes(transparent, "PNG", icc_profile=swapped_profile()))
    assert abs(values - swapped).mean() < 8


def test_the_profile_of_screens_changes_no_pixel() -> None:
    values, notes = decode(to_bytes(picture(), "PNG", icc_profile=srgb_profile()))
    assert np.array_equal(values, np.asarray(picture())) and notes == ()


def test_a_grey_profile() -> None:
    """Linear light: the middle of the scale is much lighter on a screen."""
    profile = grey_profile()
    grey = Image.new("L", (8, 8), 128)
    values, notes = decode(to_bytes(grey, "PNG", icc_profile=profile))
    assert abs(values - 188).max() <= 2 and notes == ()
    values, _ = decode(to_bytes(grey.convert("LA"), "PNG", icc_profile=profile))
    assert abs(values - 188).max() <= 2


@pytest.mark.parametrize(
    "profile", [b"x", b"no profile" * 40, srgb_profile()[:300], b"\0" * 5_000_000]
)
def test_a_broken_profile_costs_its_colours_only(profile: bytes) -> None:
    rgb, is_used = to_srgb(picture(), profile)
    assert not is_used and np.array_equal(np.asarray(rgb), np.asarray(picture()))


def test_damaged_profiles_never_cost_the_picture() -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(srgb_profile(), np.uint8)
    for _ in range(100):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 6)] = rng.integers(0, 255, 6)
        rgb, _ = to_srgb(picture(), damaged.tobytes())
        assert rgb.mode == "RGB" and rgb.size == picture().size


def test_a_profile_of_another_kind_of_picture_is_left_aside() -> None:
    values, notes = decode(to_bytes(picture().convert("CMYK"), icc_profile=srgb_profile()))
    plain, _ = decode(to_bytes(picture().convert("CMYK")))
    assert np.array_equal(values, plain) and notes == ("icc-profile-unusable",)


def test_floating_point_is_refused_not_guessed() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        flatten(Image.new("F", (2, 2)))


def grey_profile() -> bytes:
    """The profile of sRGB made one of grey in linear light, by its table of tags."""
    profile = bytearray(srgb_profile())
    profile[16:20] = b"GRAY"
    tags = profile[128:]
    start = tags.index(b"rTRC") + 128
    offset = int.from_bytes(profile[start + 4 : start + 8])
    profile[start : start + 4] = b"kTRC"
    # A curve of no entries is linear.
    profile[offset : offset + 12] = b"curv" + bytes(8)
    assert ImageCms.ImageCmsProfile(io.BytesIO(bytes(profile))).profile.xcolor_space == "GRAY"
    return bytes(profile)
