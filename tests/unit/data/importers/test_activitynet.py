"""JSON databases: ActivityNet's segments, Annots of frame folders, two segments of one video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.activitynet import read_activitynet
from data.importers.registry import recognise
from data.synthetic.dataset import write_video

from .trees import by_id, frames, lay_out, sides


def segment(label: str, start: float, end: float) -> dict[str, Any]:
    return {"label": label, "segment": [start, end]}


def write(root: Path, database: object, name: str = "activity_net.json", **rest: object) -> Path:
    return lay_out(root, {name: json.dumps({"version": "1.3", "database": database, **rest})})


def test_two_segments_of_one_video_are_two_clips_cut_at_the_frame_rate(tmp_path: Path) -> None:
    two = {"subset": "training", "annotations": [segment("Run", 0.4, 1.0), segment("Walk", 1.0, 2.0)]}
    write(tmp_path, {"abc": two, "xyz": {"subset": "validation", "annotations": [segment("Run", 0, 1)]}})
    (tmp_path / "videos").mkdir()
    for name in ("v_abc", "xyz"):
        write_video(tmp_path / "videos" / f"{name}.avi", np.zeros((60, 16, 16, 3), np.uint8), fps=25)
    listing = read_activitynet(tmp_path)
    assert recognise(tmp_path) == "activitynet"
    cuts = {clip.class_name: (clip.path, clip.start, clip.end) for clip in listing.clips if clip.group == "abc"}
    assert cuts == {"Run": ("videos/v_abc.avi", 10, 25), "Walk": ("videos/v_abc.avi", 25, 50)}
    assert len({clip.id for clip in listing.clips}) == 3
    assert {clip.group: side for clip, side in zip(listing.clips, sides(listing).values(), strict=True)} == {
        "abc": "train",
        "xyz": "test",
    }


def test_trimmed_files_are_taken_whole(tmp_path: Path) -> None:
    write(tmp_path, {"abc": {"subset": "training", "annotations": [segment("Run", 5, 15), segment("Run", 20, 30)]}})
    lay_out(tmp_path, empty=["Run/abc_000005_000015.mp4", "Run/abc_000020_000030.mp4"])
    clips = read_activitynet(tmp_path).clips
    assert [(clip.path, clip.start, clip.end) for clip in clips] == [
        ("Run/abc_000005_000015.mp4", 0, None),
        ("Run/abc_000020_000030.mp4", 0, None),
    ]


def test_annots_of_frame_folders(tmp_path: Path) -> None:
    entry = {"subset": "train", "label": "walk", "cls": 1, "isthere": 1, "numf": 3}
    database = {
        "aaa": entry,
        "bbb": entry | {"label": "run", "cls": 0, "subset": "val"},
        "ccc": entry | {"isthere": 0},
        "ddd": entry,
    }
    write(tmp_path, database, "Annots.json", classes={"run": 0, "walk": 1, "swim": 2})
    lay_out(tmp_path, empty=[n for id_ in ("aaa", "bbb") for n in frames(f"rgb-images/{id_}")])
    listing = read_activitynet(tmp_path)
    assert listing.class_names == ("run", "walk", "swim")
    clip = by_id(listing)["walk/aaa"]
    assert (clip.path, clip.kind, clip.frame_name, clip.label) == ("rgb-images/aaa", "frames", "%05d.jpg", 1)
    assert sides(listing) == {"walk/aaa": "train", "run/bbb": "test"}
    assert "1 videos are listed as not available" in listing.notes
    assert "1 of 3 listed clips are missing, e.g. ddd" in listing.notes


def test_seconds_of_extracted_frames_use_the_listed_rate(tmp_path: Path) -> None:
    whole = {"subset": "training", "duration": 10.0, "numf": 100, "annotations": [segment("Run", 2, 4)]}
    write(tmp_path, {"abc": whole})
    lay_out(tmp_path, empty=frames("frames/abc"))
    (clip,) = read_activitynet(tmp_path).clips
    assert (clip.start, clip.end) == (20, 40)
    del whole["numf"]
    write(tmp_path, {"abc": whole})
    with pytest.raises(DatasetFormatError, match="has no frames per second"):
        read_activitynet(tmp_path)


def test_names_of_known_sets_keep_their_groups(tmp_path: Path) -> None:
    names = ["v_Run_g01_c01", "v_Run_g01_c02"]
    write(tmp_path, {n: {"subset": "training", "annotations": {"label": "Run"}} for n in names}, labels=["Run"])
    lay_out(tmp_path, empty=[f"Run/{name}.avi" for name in names])
    assert {clip.group for clip in read_activitynet(tmp_path).clips} == {"Run/g01"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"subset": "held out"}, "'held out' is not a side"),
        ({"subset": "train", "annotations": [segment("Run", 5, 5)]}, r"segment \[5, 5\] is not"),
        ({"subset": "train", "annotations": [{"label": "Run", "segment": ["a", 2]}]}, "is not"),
        ({"subset": "train", "annotations": ["Run"]}, "annotations are not mappings"),
        ([], "is not a mapping"),
    ],
)
def test_an_entry_that_is_not_valid_is_named(tmp_path: Path, entry: object, message: str) -> None:
    write(tmp_path, {"abc": entry})
    with pytest.raises(DatasetFormatError, match=rf"database\.abc.*{message}"):
        read_activitynet(tmp_path)


def test_an_id_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"../abc": {"subset": "train", "label": "Run"}})
    with pytest.raises(DatasetFormatError, match="not a path below"):
        read_activitynet(tmp_path)


def test_a_class_that_the_list_lacks_and_two_sides_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"abc": {"subset": "train", "label": "Run"}}, classes={"Walk": 0})
    lay_out(tmp_path, empty=["abc.mp4"])
    with pytest.raises(DatasetFormatError, match="class 'Run' of abc is not in the class list"):
        read_activitynet(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no JSON with a 'database'"):
        read_activitynet(tmp_path)
    write(tmp_path, {"abc": {"subset": "train", "label": "Run"}})
    with pytest.raises(DatasetNotFoundError, match="none of the 1 listed videos"):
        read_activitynet(tmp_path)
    write(tmp_path, {}, "other.json")
    with pytest.raises(DatasetFormatError, match=r"activity_net\.json and other\.json"):
        read_activitynet(tmp_path)
