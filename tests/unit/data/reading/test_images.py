"""Images of every make, as PIL sees them, and cut ones refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.errors import VideoError
from data.reading.images import decode_image, encode_jpeg, image_codec, resize_image

RAMP = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
COLOURS = np.stack([RAMP * 2, 255 - RAMP * 2, RAMP], axis=-1)


def encoded(picture: Image.Image, format_: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, format_, **options)
    return content.getvalue()


def pil(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_lossless_images_are_those_of_pil(format_: str, mode: str) -> None:
    content = encoded(Image.fromarray(COLOURS).convert(mode), format_)
    np.testing.assert_array_equal(decode_image(content, "x"), pil(content))
    assert image_codec(content) == format_.lower()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_are_those_of_pil(mode: str) -> None:
    content = encoded(Image.fromarray(COLOURS).convert(mode), "JPEG", quality=95)
    difference = np.abs(decode_image(content, "x").astype(int) - pil(content))
    assert difference.mean() < 2


def test_transparency_is_dropped() -> None:
    alpha = np.dstack([COLOURS, RAMP])
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(alpha), "PNG"), "x"), COLOURS)


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = RAMP.astype(np.uint16) * 257
    content = encoded(Image.fromarray(deep), "PNG")
    np.testing.assert_array_equal(decode_image(content, "x"), np.dstack([RAMP] * 3))


def test_a_photograph_is_turned_as_its_tag_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(COLOURS), "JPEG", quality=95, exif=exif.tobytes())
    decoded = decode_image(content, "x")
    assert decoded.shape == (60, 40, 3)
    assert np.abs(decoded.astype(int) - pil(content)).mean() < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5)])
def test_tiny_images_decode(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 77, np.uint8)
    assert decode_image(encode_jpeg(picture, 90), "x").shape == (*size, 3)


def test_grey_decoding_gives_one_plane() -> None:
    content = encoded(Image.fromarray(RAMP), "PNG")
    np.testing.assert_array_equal(decode_image(content, "x", colour=False), RAMP)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_image_is_named(format_: str, share: float) -> None:
    thumbnail = encoded(Image.fromarray(COLOURS[:8, :8]), "JPEG")
    exif = b"Exif\0\0" + thumbnail if format_ == "JPEG" else b""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format_, **({"exif": exif} if exif else {}))
    assert decode_image(content, "whole").shape == (64, 64, 3)
    with pytest.raises(VideoError, match=r"^x ends in the middle") as raised:
        decode_image(content[: int(len(content) * share)], "x")
    assert raised.value.status == "truncated"


@pytest.mark.parametrize("content", [b"", b"text", b"BM", b"\x89PNG", b"RIFF1234WEBP", bytes(1000)])
def test_bytes_that_are_not_an_image_are_named(content: bytes) -> None:
    with pytest.raises(VideoError, match=r"^x "):
        decode_image(content, "x")


def test_shrinking_averages_areas() -> None:
    small = resize_image(COLOURS, 30, 20)
    averaged = COLOURS.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - averaged).max() <= 1
    assert resize_image(COLOURS, 60, 40) is COLOURS
    assert resize_image(COLOURS, 90, 50).shape == (50, 90, 3)
