"""Clips of every kind give the same frames, and say what is wrong with them."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.errors import VideoError
from data.index.records import FlowFiles
from data.reading.clip_frames import clip_frames
from data.scanning.measure import Measurements, measure_all, measure_clip
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import listed, moving, write_database, write_frames

from ..encoded import decode_video

FRAMES = moving(12, 20, 30)


@pytest.mark.parametrize(("start", "end"), [(0, None), (3, None), (0, 5), (3, 9)])
@pytest.mark.parametrize("first", [0, 1])
def test_folders_and_databases_give_their_frames(tmp_path: Path, first: int, start: int, end: int | None) -> None:
    write_frames(tmp_path / "folder", FRAMES, first=first)
    write_frames(tmp_path / "folder", FRAMES[:, :, ::-1], name="flow_x_%05d.png")
    write_database(tmp_path / "base", "a/100% clip", FRAMES, first=first)
    write_database(tmp_path / "base", "a/100% clip 2", FRAMES[::-1], first=first)
    clips = [
        listed("folder", kind="frames", frame_name="img_%05d.png", start=start, end=end),
        listed("base", kind="lmdb", frame_name="a/100%% clip/%05d", start=start, end=end),
    ]
    for clip in clips:
        np.testing.assert_array_equal(np.stack(list(clip_frames(clip, tmp_path))), FRAMES[start:end])
        measured = measure_clip(tmp_path, clip)
        assert (measured.status, measured.n_frames, measured.width, measured.height, measured.codec) == (
            "ok",
            len(FRAMES[start:end]),
            30,
            20,
            "png",
        )


@pytest.mark.parametrize(("start", "end"), [(0, None), (14, None), (0, 5), (13, 27)])
def test_a_segment_of_a_video_is_cut_from_its_decoded_frames(tmp_path: Path, start: int, end: int | None) -> None:
    write_video(tmp_path / "a.avi", moving(30, 32, 48))
    clip = listed("a.avi", start=start, end=end)
    expected = decode_video(tmp_path / "a.avi")[start:end]
    np.testing.assert_array_equal(np.stack(list(clip_frames(clip, tmp_path))), expected)
    assert measure_clip(tmp_path, clip).n_frames == len(expected)


def test_segments_of_one_video_differ_in_content(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", moving(30, 32, 48))
    segments = [listed("a.avi", start=start, end=start + 9) for start in (0, 9, 18)]
    assert len({measure_clip(tmp_path, clip).sha1 for clip in (*segments, listed("a.avi"))}) == 4


def test_a_segment_may_lack_a_frame_or_two_of_its_list(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", moving(30, 32, 48))
    assert measure_clip(tmp_path, listed("a.avi", start=10, end=32)).n_frames == 20
    late = measure_clip(tmp_path, listed("a.avi", start=10, end=33))
    assert (late.status, late.note) == ("truncated", "20 of the 23 listed frames are there")
    assert measure_clip(tmp_path, listed("a.avi", start=40, end=50)).note == "it has no frame 40"


def test_one_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    write_frames(tmp_path, FRAMES[:1])
    clip = listed("img_00001.png", kind="image")
    assert (measure_clip(tmp_path, clip).status, measure_clip(tmp_path, clip).n_frames) == ("ok", 1)
    np.testing.assert_array_equal(next(clip_frames(clip, tmp_path)), FRAMES[0])


def test_one_frame_in_a_folder_is_too_short(tmp_path: Path) -> None:
    write_frames(tmp_path / "folder", FRAMES[:1])
    assert measure_clip(tmp_path, listed("folder", kind="frames")).status == "short"


def test_frames_are_scaled_to_the_first_ones_size(tmp_path: Path) -> None:
    write_frames(tmp_path / "folder", FRAMES[:3])
    write_frames(tmp_path / "folder", moving(2, 40, 60), first=4)
    clip = listed("folder", kind="frames")
    assert {frame.shape for frame in clip_frames(clip, tmp_path)} == {(20, 30, 3)}
    assert {frame.shape for frame in clip_frames(clip, tmp_path, short_side=16)} == {(16, 24, 3)}


def test_names_do_not_decide_how_an_image_is_decoded(tmp_path: Path) -> None:
    write_frames(tmp_path / "folder", FRAMES)
    for file in (tmp_path / "folder").iterdir():
        file.rename(file.with_suffix(".jpg"))
    clip = listed("folder", kind="frames", frame_name="img_%05d.jpg")
    np.testing.assert_array_equal(np.stack(list(clip_frames(clip, tmp_path))), FRAMES)
    assert measure_clip(tmp_path, clip).codec == "png"


@pytest.mark.parametrize(
    ("damage", "status", "note"),
    [
        (lambda file: file.unlink(), "truncated", "img_00005.png is missing between"),
        (lambda file: file.write_bytes(b""), "truncated", "img_00005.png has no bytes"),
        (lambda file: file.write_bytes(b"text"), "corrupt", "img_00005.png cannot be decoded"),
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "truncated", "img_00005.png ends in the middle"),
    ],
)
def test_a_broken_frame_is_named(tmp_path: Path, damage: object, status: str, note: str) -> None:
    write_frames(tmp_path / "folder", FRAMES)
    damage(tmp_path / "folder" / "img_00005.png")  # type: ignore[operator]  # one of the functions above
    measured = measure_clip(tmp_path, listed("folder", kind="frames"))
    assert measured.status == status
    assert note in measured.note


@pytest.mark.parametrize("kind", ["frames", "image", "lmdb", "video"])
def test_a_missing_medium_is_reported_as_missing(tmp_path: Path, kind: str) -> None:
    assert measure_clip(tmp_path, listed("no", kind=kind, frame_name="%05d")).status == "missing"


def test_a_folder_or_database_without_frames_is_empty(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write_database(tmp_path / "base", "a", FRAMES)
    assert measure_clip(tmp_path, listed("folder", kind="frames")).status == "empty"
    assert measure_clip(tmp_path, listed("base", kind="lmdb", frame_name="b/%05d")).status == "empty"


def test_a_file_that_is_not_a_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"text" * 5000)
    measured = measure_clip(tmp_path, listed("base", kind="lmdb", frame_name="a/%05d"))
    assert (measured.status, "cannot be read as an LMDB" in measured.note) == ("corrupt", True)


def test_a_database_is_read_where_nothing_may_be_written(tmp_path: Path) -> None:
    write_database(tmp_path / "base", "a", FRAMES)
    (tmp_path / "base" / "lock.mdb").unlink()
    (tmp_path / "base").chmod(0o500)
    clip = listed("base", kind="lmdb", frame_name="a/%05d")
    assert measure_clip(tmp_path, clip).status == "ok"
    assert os.listdir(tmp_path / "base") == ["data.mdb"]
    (tmp_path / "base").chmod(0o700)


def test_a_database_opened_before_a_fork_is_read_after_it(tmp_path: Path) -> None:
    write_database(tmp_path / "base", "a", FRAMES)
    code = """
import os, pickle, sys
from pathlib import Path
from data.reading.clip_frames import clip_frames
clip, root = pickle.load(sys.stdin.buffer)
before = sum(frame.sum(dtype=int) for frame in clip_frames(clip, root))
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0 if sum(frame.sum(dtype=int) for frame in clip_frames(clip, root)) == before else 1)
"""
    content = pickle.dumps((listed("base", kind="lmdb", frame_name="a/%05d"), tmp_path))
    subprocess.run([sys.executable, "-c", code], input=content, check=True)


def test_a_database_that_is_replaced_is_opened_again(tmp_path: Path) -> None:
    clip = listed("base", kind="lmdb", frame_name="a/%05d")
    for name, frames in (("base", FRAMES), ("other", FRAMES[::-1])):
        write_database(tmp_path / name, "a", frames)
    assert (next(clip_frames(clip, tmp_path)) == FRAMES[0]).all()
    (tmp_path / "other" / "data.mdb").replace(tmp_path / "base" / "data.mdb")
    assert (next(clip_frames(clip, tmp_path)) == FRAMES[-1]).all()


def test_measurements_are_kept_until_the_folder_changes(tmp_path: Path) -> None:
    write_frames(tmp_path / "folder", FRAMES)
    memory = Measurements(tmp_path / "memory.jsonl")
    whole, part = listed("folder", kind="frames"), listed("folder", kind="frames", id="part", start=2, end=9)
    told: list[tuple[str, int, int]] = []

    def look() -> list[int]:
        return [
            m.n_frames
            for m in measure_all(tmp_path, [whole, part], memory, progress=lambda *s: told.append(s)).values()
        ]

    assert look() == look() == [12, 7]
    assert told == [("scan", 1, 2), ("scan", 2, 2)]
    write_frames(tmp_path / "folder", FRAMES[:1], first=13)
    assert look() == [13, 7]


@pytest.mark.parametrize(("n_pairs", "status"), [(12, "ok"), (11, "ok"), (10, "ok"), (9, "truncated")])
def test_listed_flow_may_lack_one_pair(tmp_path: Path, n_pairs: int, status: str) -> None:
    write_frames(tmp_path / "folder", FRAMES)
    for axis in ("u", "v"):
        write_frames(tmp_path / axis, FRAMES[:n_pairs], name="frame%06d.png")
    clip = listed("folder", kind="frames", flow=FlowFiles(x="u/frame%06d.png", y="v/frame%06d.png"))
    measured = measure_clip(tmp_path, clip)
    assert measured.status == status
    if status != "ok":
        assert measured.note == "its flow has 9 pairs of images for 12 frames"


def test_flow_pairs_that_differ_in_size_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "folder", FRAMES)
    for axis in ("u", "v"):
        write_frames(tmp_path / axis, FRAMES, name="frame%06d.png")
    write_frames(tmp_path / "u", FRAMES[:1, :10, :10], name="frame%06d.png", first=5)
    clip = listed("folder", kind="frames", flow=FlowFiles(x="u/frame%06d.png", y="v/frame%06d.png"))
    measured = measure_clip(tmp_path, clip)
    assert measured.status == "corrupt"
    assert re.fullmatch(
        r"its flow is damaged: \S+u/frame000005\.png and \S+v/frame000005\.png differ in size: they must have the same",
        measured.note,
    )


def test_reading_a_broken_frame_raises_with_its_name(tmp_path: Path) -> None:
    write_frames(tmp_path / "folder", FRAMES)
    (tmp_path / "folder" / "img_00003.png").write_bytes(b"x")
    with pytest.raises(VideoError, match=r"img_00003\.png cannot be decoded"):
        list(clip_frames(listed("folder", kind="frames"), tmp_path))
