"""What a scan remembers holds as long as the files on the disk are the same."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.preparation.prepare import prepare
from data.scanning.measure import Measurements, measure_all
from data.scanning.scan import scan_into
from data.specs import DatasetSpec
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import listed, moving


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


def test_check_notices_a_file_that_changed_without_another_size_or_time(root: Path, tmp_path: Path) -> None:
    before = scan_into(tmp_path / "cache", root)
    frame = root / "run" / "a" / "00003.png"
    sound, stat = frame.read_bytes(), frame.stat()
    frame.write_bytes(bytes(len(sound)))
    os.utime(frame, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert scan_into(tmp_path / "cache", root).hash == before.hash
    seen: list[tuple[str, int, int]] = []
    damaged = scan_into(
        tmp_path / "cache", root, every_byte=True, progress=lambda stage, done, of: seen.append((stage, done, of))
    )
    assert {clip.id: clip.measured.status for clip in damaged.clips} == {"run/a": "corrupt", "walk/b": "ok"}
    # Both are read, with a bar; the other clip is not decoded again.
    assert seen == [("check", 1, 2), ("check", 2, 2), ("scan", 1, 1)]
    assert scan_into(tmp_path / "cache", root).hash == damaged.hash  # workers see it from now on
    frame.write_bytes(sound)
    os.utime(frame, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert scan_into(tmp_path / "cache", root, every_byte=True).hash == before.hash


def test_check_reads_a_video_once_for_all_its_segments(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", moving(12, 32, 32))
    clips = [listed("a.avi", id=f"a@{start}", kind="video", start=start, end=start + 4) for start in (0, 4, 8)]
    memory, seen = Measurements(None), []
    before = measure_all(tmp_path, clips, memory)
    assert len({measured.sha1 for measured in before.values()}) == 3
    after = measure_all(
        tmp_path, clips, memory, every_byte=True, progress=lambda stage, done, of: seen.append((stage, done, of))
    )
    assert (after, seen) == (before, [("check", 1, 1)])


@pytest.fixture
def with_flow(root: Path) -> Path:
    for name in ("run/a", "walk/b"):
        for number in range(5):
            for axis in "xy":
                _frame(root / name / f"{number:05d}_{axis}.png", 20 * number)
    return root


def test_listed_flow_is_part_of_the_version(with_flow: Path, tmp_path: Path) -> None:
    before = scan_into(tmp_path / "cache", with_flow)
    assert all(clip.flow is not None and clip.measured.flow_sha1 for clip in before.clips)
    image = with_flow / "run" / "a" / "00002_x.png"
    _frame(image, 200)
    os.utime(with_flow / "run" / "a", ns=(1, 1))
    after = scan_into(tmp_path / "cache", with_flow)
    assert after.hash != before.hash
    assert [a.measured.sha1 == b.measured.sha1 for a, b in zip(after.clips, before.clips, strict=True)] == [True, True]


def test_a_cut_flow_image_costs_its_clip_only(with_flow: Path, tmp_path: Path) -> None:
    image = with_flow / "run" / "a" / "00002_y.png"
    image.write_bytes(image.read_bytes()[:40])
    index = scan_into(tmp_path / "cache", with_flow)
    assert {clip.id: clip.measured.status for clip in index.clips} == {"run/a": "truncated", "walk/b": "ok"}
    assert "00002_y.png ends in the middle" in index.problems()[0].note
    spec = DatasetSpec(name="class_folders", root=with_flow, flow="listed", short_side=24)
    assert list(prepare(index, spec, tmp_path / "cache")["flow"].manifest.ids) == ["walk/b"]
