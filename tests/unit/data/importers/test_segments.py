"""Segments in seconds: cut by timestamps, each with its own id and one label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.errors import DatasetFormatError
from data.importers.activitynet import read_activitynet
from data.importers.kinetics import read_kinetics
from data.importers.segments import Clock
from data.reading.video import decode_frames
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving
from tests.unit.data.reading.test_video import encode

from .trees import frames, lay_out


def write_list(root: Path, *found: tuple[str, float, float], video: str = "abc") -> Path:
    one = [{"label": label, "segment": [start, end]} for label, start, end in found]
    database = {video: {"subset": "training", "annotations": one}}
    return lay_out(root, {"activity_net.json": json.dumps({"database": database})})


def test_segments_of_a_varying_rate_are_cut_by_timestamps(tmp_path: Path) -> None:
    """Ten frames in the first second, thirty in the next: an average rate would cut frames 20 to 40."""
    times = [4 * n for n in range(10)] + [40 + n for n in range(30)]
    pictures = moving(40, 48, 64)
    encode(tmp_path / "abc.mp4", pictures, "libx264", times=times)
    clips = read_activitynet(write_list(tmp_path, ("Run", 0.0, 1.0), ("Walk", 1.0, 1.5))).clips
    cuts = {clip.class_name: (clip.start, clip.end) for clip in clips}
    assert cuts == {"Run": (0, 10), "Walk": (10, 30)}
    decoded = np.stack(list(decode_frames(tmp_path / "abc.mp4", start=10, end=30)))
    assert np.abs(decoded.astype(int) - pictures[10:30]).mean() < 12


def test_short_segments_of_one_second_are_all_there(tmp_path: Path) -> None:
    write_video(tmp_path / "abc.avi", np.zeros((60, 16, 16, 3), np.uint8), fps=25)
    clips = read_activitynet(write_list(tmp_path, ("Run", 1.0, 1.4), ("Run", 1.5, 1.9))).clips
    assert {clip.id: (clip.start, clip.end) for clip in clips} == {
        "Run/abc_1.000_1.400": (25, 35),
        "Run/abc_1.500_1.900": (38, 48),
    }


def test_a_segment_under_two_labels_is_refused_with_both_places(tmp_path: Path) -> None:
    write_video(tmp_path / "abc.avi", np.zeros((60, 16, 16, 3), np.uint8), fps=25)
    with pytest.raises(DatasetFormatError, match=r"database\.abc: abc\.avi is listed as 'Walk', and as 'Run' in .*abc"):
        read_activitynet(write_list(tmp_path, ("Run", 0, 1), ("Walk", 0, 1)))


def test_a_video_in_two_lists_is_refused_with_both_lines(tmp_path: Path) -> None:
    head = "label,youtube_id,time_start,time_end,split\n"
    lists = {"train.csv": f"{head}Run,abcdefghijk,0,10,train\n", "val.csv": f"{head}Run,abcdefghijk,0,10,val\n"}
    lay_out(tmp_path, lists, ["abcdefghijk_000000_000010.mp4"])
    with pytest.raises(DatasetFormatError, match=r"val\.csv:2: .*two sides, also in .*train\.csv:2"):
        read_kinetics(tmp_path)


def test_segments_of_trimmed_clips_in_frames_are_no_seconds(tmp_path: Path) -> None:
    database = {
        name: {"subset": side, "annotations": {"label": label, "segment": [1, 4]}}
        for name, side, label in (("a", "training", "Run"), ("b", "validation", "Walk"))
    }
    lay_out(tmp_path, {"ucf101_01.json": json.dumps({"database": database, "labels": ["Run", "Walk"]})})
    lay_out(tmp_path, empty=[path for folder in ("Run/a", "Walk/b") for path in frames(f"jpg/{folder}")])
    clips = read_activitynet(tmp_path).clips
    assert {clip.path: (clip.start, clip.end) for clip in clips} == {"jpg/Run/a": (0, None), "jpg/Walk/b": (0, None)}


def test_a_failed_download_does_not_hide_a_good_one(tmp_path: Path) -> None:
    lay_out(tmp_path, {"abc.webm": "bytes"}, ["abc.mp4"])
    (clip,) = read_activitynet(write_list(tmp_path, ("Run", 0, 1))).clips
    assert clip.path == "abc.webm"


def test_a_picture_in_a_class_folder_does_not_hide_its_videos(tmp_path: Path) -> None:
    head = "label,youtube_id,time_start,time_end,split\n"
    ids = [f"abcdefghij{n}" for n in range(3)]
    rows = "".join(f"Run,{id_},0,10,train\n" for id_ in ids)
    lay_out(tmp_path, {"train.csv": head + rows}, [f"Run/{id_}_000000_000010.mp4" for id_ in ids] + ["Run/00.jpg"])
    assert len(read_kinetics(tmp_path).clips) == 3


def test_a_playlist_in_the_place_of_a_video_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(12, 32, 32))
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    assert Clock.of(tmp_path / "a.mp4") is not None
    assert Clock.of(tmp_path / "b.mp4") is None
