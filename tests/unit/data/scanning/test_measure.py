"""What a scan remembers holds as long as the files on the disk are the same."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.scanning.scan import scan_into


def _frame(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((24, 32, 3), grey, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set of two clips, each a folder of six frames."""
    for name in ("run/a", "walk/b"):
        for number in range(6):
            _frame(tmp_path / "set" / name / f"{number:05d}.png", 40 * number)
    return tmp_path / "set"


def test_a_frame_that_is_rewritten_in_place_is_measured_again(root: Path, tmp_path: Path) -> None:
    before = scan_into(tmp_path / "cache", root)
    assert [clip.n_frames for clip in before.clips] == [6, 6]
    assert scan_into(tmp_path / "cache", root).hash == before.hash
    frame = root / "run" / "a" / "00003.png"
    _frame(frame, 7)
    os.utime(frame, ns=(1, 1))  # a clock that did not move between the two writes must not hide the second
    after = {clip.id: clip.measured for clip in scan_into(tmp_path / "cache", root).clips}
    for clip in before.clips:
        assert (after[clip.id].sha1 == clip.measured.sha1) == (clip.class_name == "walk")


def test_a_frame_that_is_added_is_counted(root: Path, tmp_path: Path) -> None:
    scan_into(tmp_path / "cache", root)
    _frame(root / "walk" / "b" / "00006.png", 250)
    assert [clip.n_frames for clip in scan_into(tmp_path / "cache", root).clips] == [6, 7]
