import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from recaption.common.config import ConfigError
from recaption.images import BadImageError, ImageConfig, decode_image, encode_image, fit_size
from tests.recaption.shard_files import picture, to_bytes
from tests.recaption.torture_images import HEIC, oriented, png, ycck_of_red

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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied(orientation: int) -> None:
    data = oriented(orientation, "PNG")
    assert np.array_equal(decode(data), np.asarray(picture()))
    half = decode(data, ImageConfig(max_side=20))
    assert half.shape == (15, 20, 3)
    expected = np.asarray(picture().resize((20, 15), Image.Resampling.BOX)).astype(int)
    assert abs(half - expected).mean() < 20


def test_ycck_and_16_bits_a_channel() -> None:
    assert np.allclose(decode(ycck_of_red()), [255, 0, 0], atol=3)
    row = b"\0" + struct.pack(">6H", 65535, 257 * 100, 0, 0, 0, 65535)
    assert decode(png(2, 1, 16, row)).tolist() == [[[255, 100, 0], [0, 0, 255]]]


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_formats_of_cameras_and_of_the_web(form: str) -> None:
    data = HEIC if form == "HEIF" else to_bytes(picture(), form, quality=90)
    assert abs(decode(data) - np.asarray(picture())).mean() < 6


def test_what_is_no_picture_is_named() -> None:
    for data, words in (
        (b"\xef\xbb\xbf\n<!DOCTYPE html><p>gone</p>", "an HTML page"),
        (b"<?xml version='1.0'?><!-- x --><svg width='1'/>", "SVG"),
        (b'{"code": 404}', "JSON"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"Forbidden", "text"),
    ):
        with pytest.raises(BadImageError, match=f"^unsupported-format: .*{words}"):
            decode_image(data, CONFIG)


@pytest.mark.parametrize(("data", "decoder"), [(HEIC, "pi-heif"), (b"\0\0\0 ftypavif", "pillow")])
def test_a_missing_decoder_is_named(
    data: bytes, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recaption.images.FORMATS", ("JPEG", "PNG"))
    monkeypatch.setattr("recaption.image_formats.FORMATS", ("JPEG", "PNG"))
    with pytest.raises(BadImageError, match=f"unsupported-format: .*pip install .*{decoder}"):
        decode_image(data, CONFIG)


def test_a_file_with_too_many_bytes_is_not_read() -> None:
    data = to_bytes(picture())
    assert_reason(data, "too-many-bytes", ImageConfig(max_bytes=len(data) - 1))
    assert decode(data, ImageConfig(max_bytes=len(data))).shape == (30, 40, 3)


def test_how_elongated_a_picture_may_be() -> None:
    data = to_bytes(picture(size=(401, 2)), "PNG")
    assert_reason(data, "too-elongated")
    assert decode(data, ImageConfig(max_aspect_ratio=0)).shape == (2, 401, 3)
    assert decode(to_bytes(picture(size=(400, 2)), "PNG")).shape == (2, 400, 3)


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


def test_resize_pixels_keeps_the_shape_and_stays_below() -> None:
    data = to_bytes(picture(size=(400, 200)))
    assert decode(data, ImageConfig(resize_pixels=20_000)).shape == (100, 200, 3)
    assert decode(data, ImageConfig(resize_pixels=80_000)).shape == (200, 400, 3)
    both = ImageConfig(resize_pixels=20_000, max_side=100)
    assert decode(data, both).shape == (50, 100, 3)
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        size = (int(rng.integers(1, 5_000)), int(rng.integers(1, 5_000)))
        config = ImageConfig(resize_pixels=int(rng.integers(5_000, 2_000_000)))
        width, height = fit_size(size, config)
        assert 1 <= width <= size[0] and 1 <= height <= size[1]
        assert width * height <= config.resize_pixels
        scale = max(width, height) / max(size)
        assert abs(min(width, height) - scale * min(size)) <= 1
        if size[0] * size[1] > config.resize_pixels:
            assert (max(width, height) + 1) ** 2 * min(size) / max(size) > config.resize_pixels
        else:
            assert (width, height) == size


def test_a_reduced_jpeg_looks_like_the_whole_one() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    source = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    reduced = decode(to_bytes(source, quality=95), ImageConfig(resize_pixels=200 * 150))
    expected = np.asarray(source.resize((200, 150), Image.Resampling.LANCZOS)).astype(int)
    assert reduced.shape == expected.shape and abs(reduced - expected).mean() < 2


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="max_bytes=0"):
        ImageConfig(max_bytes=0)
    with pytest.raises(ConfigError, match="resize_pixels=-1"):
        ImageConfig(resize_pixels=-1)


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
