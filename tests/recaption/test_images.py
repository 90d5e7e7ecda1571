import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from recaption.images import BadImageError, ImageConfig, decode_image, encode_image
from tests.recaption.shard_files import picture, to_bytes

CONFIG = ImageConfig()


def decode(data: bytes, config: ImageConfig = CONFIG) -> np.ndarray:
    image = decode_image(data, config).image
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def assert_reason(data: bytes, code: str, config: ImageConfig = CONFIG) -> None:
    with pytest.raises(BadImageError) as error:
        decode_image(data, config)
    assert error.value.code == code
    assert str(error.value).startswith(f"{code}: ")


def test_plain_pictures_keep_their_pixels() -> None:
    expected = np.asarray(picture())
    assert np.array_equal(decode(to_bytes(picture(), "PNG")), expected)
    assert np.array_equal(decode(to_bytes(picture(), "WEBP", lossless=True)), expected)
    assert abs(decode(to_bytes(picture(), quality=95, subsampling=0)) - expected).mean() < 4


def test_16_bit_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257 * 10, 257 * 128, 65535]], np.uint16)
    data = to_bytes(Image.fromarray(values), "PNG")
    assert decode(data)[0, :, 0].tolist() == [0, 10, 128, 255]


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.allclose(decode(to_bytes(cmyk))[0, 0], [255, 0, 0], atol=12)


def test_palette_with_transparency_lies_on_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert decode(to_bytes(image, "PNG"))[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    transparent = to_bytes(image, "PNG", transparency=0)
    assert decode(transparent)[0].tolist() == [[255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize(("mode", "color"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))])
def test_transparent_pixels_are_white(mode: str, color: tuple[int, ...]) -> None:
    assert decode(to_bytes(Image.new(mode, (2, 2), color), "PNG")).min() == 255


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken_and_it_is_told(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = to_bytes(frames[0], form, save_all=True, append_images=frames[1:], **options)
    decoded = decode_image(data, CONFIG)
    assert decoded.is_animated
    assert decoded.image.getpixel((0, 0)) == (255, 0, 0)
    assert not decode_image(to_bytes(frames[0], form), CONFIG).is_animated


def test_the_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    data = to_bytes(picture(), "PNG", exif=exif)
    assert np.array_equal(decode(data), np.rot90(np.asarray(picture()), k=-1))


def test_a_large_picture_is_refused_by_its_header() -> None:
    assert_reason(to_bytes(picture()), "too-many-pixels", ImageConfig(max_pixels=40 * 30 - 1))
    assert decode(to_bytes(picture()), ImageConfig(max_pixels=40 * 30)).shape == (30, 40, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_decompression_bomb_is_not_decoded(side: int) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    )
    assert_reason(bomb, "too-many-pixels")


def test_bad_bytes_have_a_reason() -> None:
    whole = to_bytes(picture(size=(400, 300)))
    assert_reason(b"", "empty-image")
    assert_reason(b"\x80no image", "corrupt-image")
    assert_reason(whole[: len(whole) // 2], "corrupt-image")
    png = bytearray(to_bytes(picture(), "PNG"))
    png[60:90] = bytes(30)
    assert_reason(bytes(png), "corrupt-image")


def test_any_damage_is_a_bad_image_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP", "GIF"):
        whole = np.frombuffer(to_bytes(picture(size=(64, 48)), form), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 12)] = rng.integers(0, 255, 12)
            try:
                decode(damaged.tobytes())
            except BadImageError as error:
                assert error.code in ("corrupt-image", "too-many-pixels", "too-elongated")


def test_max_side_scales_down_and_never_up() -> None:
    data = to_bytes(picture(size=(400, 200)))
    assert decode(data, ImageConfig(max_side=100)).shape == (50, 100, 3)
    assert decode(data, ImageConfig(max_side=1000)).shape == (200, 400, 3)


def test_encoding_leaves_exif_and_comments_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    source = to_bytes(picture(), exif=exif, comment=b"secret")
    for form in ("jpeg", "png"):
        encoded = encode_image(decode_image(source, CONFIG).image, form, 95)
        assert b"home" not in encoded and b"secret" not in encoded
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.format == form.upper() and not image.getexif()


def test_small_jpegs_keep_their_colour_resolution() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    stripes[:, 1::2, 2] = 255
    decoded = decode(encode_image(Image.fromarray(stripes), "jpeg", 95))
    assert abs(decoded - stripes).mean() < 10
