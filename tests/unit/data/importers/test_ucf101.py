"""The UCF101 importer on every layout it accepts, and on lists that cannot be right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.ucf101 import read_ucf101

FILES = {
    "classInd": "1 Run\n2 HandstandPushups\n",
    "trainlist01": "Run/v_Run_g02_c01.avi 1\nHandstandPushups/v_HandstandPushups_g02_c01.avi 2\n",
    "testlist01": "Run/v_Run_g01_c01.avi\nHandstandPushups/v_HandstandPushups_g01_c01.avi\n",
}
VIDEOS = [
    "Run/v_Run_g01_c01.avi",
    "Run/v_Run_g02_c01.avi",
    "HandstandPushups/v_HandStandPushups_g01_c01.avi",
    "HandstandPushups/v_HandStandPushups_g02_c01.avi",
]


def lay_out(root: Path, *, videos: str = "videos", lists: str = "ucfTrainTestlist", suffix: str = ".txt") -> Path:
    for video in VIDEOS:
        path = root / videos / video
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / lists).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (root / lists / f"{name}{suffix}").write_text(text)
    return root


@pytest.mark.parametrize("suffix", [".txt", ""])
@pytest.mark.parametrize("lists", ["annotations/ucf101_splits", "ucfTrainTestlist", ""])
@pytest.mark.parametrize("videos", ["videos", "UCF-101", "ucf101", ""])
def test_every_layout_reads_the_same(tmp_path: Path, videos: str, lists: str, suffix: str) -> None:
    listing = read_ucf101(lay_out(tmp_path, videos=videos, lists=lists, suffix=suffix))
    assert listing.class_names == ("Run", "HandstandPushups")
    assert listing.notes == ()
    clips = {clip.id: clip for clip in listing.clips}
    assert len(clips) == 4
    run = clips["Run/v_Run_g02_c01"]
    assert (run.label, run.class_name, run.group) == (0, "Run", "Run/g02")
    assert run.official == ((1, "train"),)
    for clip in clips.values():
        assert (tmp_path / clip.path).is_file()


def test_names_are_found_in_any_case_and_the_class_is_the_folder(tmp_path: Path) -> None:
    clips = {clip.id: clip for clip in read_ucf101(lay_out(tmp_path)).clips}
    clip = clips["HandstandPushups/v_HandstandPushups_g01_c01"]
    assert clip.path == "videos/HandstandPushups/v_HandStandPushups_g01_c01.avi"
    assert clip.class_name == "HandstandPushups"
    assert clip.official == ((1, "test"),)


def test_a_missing_video_keeps_its_listed_path(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "videos" / "Run" / "v_Run_g01_c01.avi").unlink()
    clips = {clip.id: clip for clip in read_ucf101(tmp_path).clips}
    assert clips["Run/v_Run_g01_c01"].path == "videos/Run/v_Run_g01_c01.avi"


def test_unlisted_videos_are_noted(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "videos" / "Run" / "v_Run_g09_c01.avi").touch()
    (tmp_path / "videos" / "Run" / "readme.md").touch()
    (note,) = read_ucf101(tmp_path).notes
    assert note == "1 videos are on no list, e.g. Run/v_Run_g09_c01.avi"


def test_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    lay_out(tmp_path)
    for name, text in FILES.items():
        path = tmp_path / "ucfTrainTestlist" / f"{name}.txt"
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert len(read_ucf101(tmp_path).clips) == 4


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("trainlist01", "Swim/v_Swim_g01_c01.avi 1", "class 'Swim' is not in the class list"),
        ("trainlist01", "Run/v_Run_g03_c01.avi 2", "label 2 is not that of 'Run'"),
        ("trainlist01", "v_Run_g03_c01.avi 1", "is not '<class>/<file>"),
        ("trainlist01", "../v_Run_g03_c01.avi 1", "is not '<class>/<file>"),
        ("trainlist01", "Run/v_Run_g01_c01.avi 1", "is on the train and on the test list"),
        ("classInd", "x Swim", "is not '<number> <class>'"),
        ("classInd", "4 Swim", "must run from 0 or 1 without a gap"),
        ("classInd", "3 run", "a class is named twice"),
    ],
)
def test_a_line_that_is_not_valid_is_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    lay_out(tmp_path)
    path = tmp_path / "ucfTrainTestlist" / f"{name}.txt"
    path.write_text(FILES[name] + line + "\n")
    with pytest.raises(DatasetFormatError, match=message):
        read_ucf101(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="there is no folder"):
        read_ucf101(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFoundError, match=r"no trainlistNN\.txt"):
        read_ucf101(tmp_path)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text(FILES["trainlist01"])
    with pytest.raises(DatasetNotFoundError, match=r"no classInd\.txt"):
        read_ucf101(tmp_path)
    (lists / "classInd.txt").write_text(FILES["classInd"])
    with pytest.raises(DatasetNotFoundError, match="no class folder such as"):
        read_ucf101(tmp_path)


def test_the_official_lists_have_their_published_counts(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "ucfTrainTestlist").symlink_to(shared_data / "splits" / "ucf101")
    (tmp_path / "UCF-101" / "ApplyEyeMakeup").mkdir(parents=True)
    listing = read_ucf101(tmp_path)
    assert len(listing.class_names) == 101
    assert len(listing.clips) == 13320
    for split, train, test in ((1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)):
        sides = Counter(clip.subset(split) for clip in listing.clips)
        assert sides == {"train": train, "test": test}
    groups = Counter(name for name, _ in {(c.class_name, c.group) for c in listing.clips})
    assert set(groups.values()) == {25}
