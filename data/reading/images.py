"""Decoding and encoding of single images, by their content and not by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from ..errors import VideoError

if TYPE_CHECKING:
    from ..arrays import ByteArray

# Callers decode many images at once, so OpenCV's own threads would only cost switching.
cv2.setNumThreads(0)

_SIGNATURES = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG": "png",
    b"BM": "bmp",
    b"RIFF": "webp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"GIF8": "gif",
}
_JPEG_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"
_GIF_END = b";"
_PNG_END = b"IEND\xaeB`\x82"


def image_codec(content: bytes) -> str:
    """Return the name of an image's format by its first bytes; empty for an unknown format."""
    return next((name for head, name in _SIGNATURES.items() if content.startswith(head)), "")


def decode_image(content: bytes, name: str, *, colour: bool = True) -> ByteArray:
    """Return an image as RGB (H, W, 3), or as grey (H, W) without `colour`.

    Grey, 16-bit and CMYK images are converted, transparency is dropped, and a photograph is rotated by its EXIF tag.
    Of an animated image the first one is decoded.

    Args:
        name: name of the image in error messages.

    Raises:
        VideoError: the bytes are not an image, or only part of one.
    """
    if not content:
        raise VideoError(f"{name} has no bytes", status="truncated")
    codec = image_codec(content)
    if not _ends(content, codec):
        raise VideoError(f"{name} ends in the middle of the image", status="truncated")
    flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise VideoError(f"{name} cannot be decoded as an image: {error.err}") from error
    if decoded is None:
        raise VideoError(f"{name} cannot be decoded as an image")
    if colour:
        decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return cast("ByteArray", decoded)


def resize_image(image: ByteArray, width: int, height: int) -> ByteArray:
    """Return an image resized to (height, width, ...), by area averaging if it shrinks."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = width <= image.shape[1] and height <= image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast("ByteArray", cv2.resize(image, (width, height), interpolation=method))


def encode_jpeg(image: ByteArray, quality: int) -> bytes:
    """Return an RGB (H, W, 3) or grey (H, W) image as JPEG; colours are subsampled 4:2:0."""
    if image.ndim == 3:
        image = cast("ByteArray", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _ends(content: bytes, codec: str) -> bool:
    """Return whether the image is complete: decoders fill a missing part with grey without an error."""
    if codec == "jpeg":
        return content.find(_JPEG_END, _jpeg_scan(content)) != -1
    if codec == "png":
        return _PNG_END in content
    if codec == "webp":
        return len(content) >= 8 + int.from_bytes(content[4:8], "little")
    if codec == "gif":
        return content.rstrip(b"\0").endswith(_GIF_END)
    return True


def _jpeg_scan(content: bytes) -> int:
    """Return where the compressed data of a JPEG begins, after any thumbnail, which has its own end marker."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _JPEG_SCAN:
            return at
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return len(content)
