"""Videos that lie on their side, or are mirrored, are decoded as they are shown."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.reading.video import decode_frames, measure_video
from tests.unit.data.encoded import decode_video, index_of, listed, moving

from .test_video import encode

ONE = 1 << 16
MATRICES = {
    "upright": (ONE, 0, 0, ONE),
    "90": (0, ONE, -ONE, 0),
    "180": (-ONE, 0, 0, -ONE),
    "270": (0, -ONE, ONE, 0),
    "mirrored": (-ONE, 0, 0, ONE),
    "upside down": (ONE, 0, 0, -ONE),
    "exchanged": (0, ONE, ONE, 0),
    "exchanged, 180": (0, -ONE, -ONE, 0),
}
"""The numbers a, b, c, d of display matrices."""


def shown(path: Path, name: str) -> Path:
    """Give an MP4 file another display matrix, in the header of its track."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = MATRICES[name]
    struct.pack_into(">5i", content, at, a, b, 0, c, d)
    path.write_bytes(content)
    return path


def turned(pictures: np.ndarray, name: str) -> np.ndarray:
    """Return frames (T, H, W, 3) with each pixel where its matrix puts it, one by one."""
    a, b, c, d = (number // ONE for number in MATRICES[name])
    n, height, width, _ = pictures.shape
    y, x = np.mgrid[:height, :width]
    at_x, at_y = a * x + c * y, b * x + d * y
    at_x, at_y = at_x - at_x.min(), at_y - at_y.min()
    result = np.zeros((n, at_y.max() + 1, at_x.max() + 1, 3), np.uint8)
    result[:, at_y, at_x] = pictures
    return result


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_as_the_file_says(tmp_path: Path, name: str) -> None:
    encode(tmp_path / "a.mp4", moving(6, 48, 80), "libx264", qp="1")
    plain = decode_video(tmp_path / "a.mp4")
    path = shown(tmp_path / "a.mp4", name)
    expected = turned(plain, name)
    np.testing.assert_array_equal(decode_video(path), expected)
    measured = measure_video(path)
    assert (measured.status, measured.height, measured.width) == ("ok", *expected.shape[1:3])
    assert next(decode_frames(path, short_side=24)).shape[:2] == (expected.shape[1] // 2, expected.shape[2] // 2)


@pytest.mark.parametrize("name", ["90", "180", "270"])
def test_another_program_turns_them_alike(tmp_path: Path, name: str) -> None:
    encode(tmp_path / "a.mp4", moving(3, 48, 80), "libx264", qp="1")
    path = shown(tmp_path / "a.mp4", name)
    capture = cv2.VideoCapture(str(path))
    frames = [capture.read()[1][..., ::-1] for _ in range(3)]
    assert np.abs(decode_video(path).astype(int) - np.stack(frames)).mean() < 3


@pytest.mark.parametrize("name", MATRICES)
def test_frames_that_were_prepared_lying_are_prepared_again(tmp_path: Path, name: str) -> None:
    """Half a turn keeps size and length: only the version can tell the prepared frames apart."""
    encode(tmp_path / "a.mp4", moving(3, 48, 48), "libx264")
    shown(tmp_path / "a.mp4", name)
    index = index_of(tmp_path, listed("a.mp4"))
    (clip,) = index.clips
    as_before = replace(index, clips=(replace(clip, measured=replace(clip.measured, turned="")),))
    assert (index.hash == as_before.hash) == (name == "upright")
