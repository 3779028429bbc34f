"""Choosing the layout by name or by looking; groups by a pattern."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError, UnknownDatasetError
from data.importers.class_folders import read_class_folders
from data.importers.registry import LAYOUTS, recognise, resolved
from data.index.groups import has_groups, regroup

from .trees import lay_out


def test_a_name_is_taken_and_auto_is_looked_up(tmp_path: Path) -> None:
    lay_out(tmp_path, empty=["Run/a.avi"])
    assert resolved("hmdb51", tmp_path) == "hmdb51"
    assert resolved("auto", tmp_path) == "class_folders"
    with pytest.raises(UnknownDatasetError, match="no data set layout is called 'ucf202'"):
        resolved("ucf202", tmp_path)


def test_ucf101_is_recognised_wherever_its_lists_lie(tmp_path: Path) -> None:
    lists = {"classInd.txt": "1 Run\n", "trainlist01.txt": "Run/v_Run_g01_c01.avi 1\n"}
    for place in ("", "annotations/", "ucfTrainTestlist/"):
        root = tmp_path / f"set-{len(place)}"
        lay_out(root, {place + name: text for name, text in lists.items()}, ["videos/Run/v_Run_g01_c01.avi"])
        assert recognise(root) == "ucf101"


def test_a_folder_without_a_known_layout_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="there is no folder"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFoundError, match=r"not in a known layout: name the layout .*ucf101, hmdb51"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_is_reported_under_every_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        LAYOUTS[name].read(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert not LAYOUTS[name].recognise(tmp_path)


def test_a_pattern_gives_the_groups(tmp_path: Path) -> None:
    lay_out(tmp_path, empty=[f"{c}/film{f}-{n}.avi" for c in ("Run", "Walk") for f in (1, 2) for n in (1, 2)])
    listing = read_class_folders(tmp_path)
    assert not has_groups(listing.clips)
    regrouped = regroup(listing, r"/(film\d+)-")
    assert {clip.group for clip in regrouped.clips} == {"film1", "film2"}
    assert {clip.group for clip in regroup(listing, r"^(\w+)/(film\d+)").clips} == {
        f"{c}/film{f}" for c in ("Run", "Walk") for f in (1, 2)
    }
    assert replace(regrouped, clips=listing.clips) == listing


def test_a_pattern_that_does_not_match_all_clips_is_reported(tmp_path: Path) -> None:
    listing = read_class_folders(lay_out(tmp_path, empty=["Run/film1-1.avi", "Run/other.avi"]))
    assert "does not match 1 of 2 clips" in regroup(listing, "film1").notes[-1]
    with pytest.raises(DatasetFormatError, match=r"matches no clip, for example not 'Run/film1-1'"):
        regroup(listing, "series")
    with pytest.raises(DatasetFormatError, match="not a regular expression"):
        regroup(listing, "(")


def test_a_layout_deeper_than_the_root_is_named(tmp_path: Path) -> None:
    lists = {"x/a/b/ucf/trainlist01.txt": "Run/a.avi 1\n", "x/a/b/ucf/classInd.txt": "1 Run\n"}
    with pytest.raises(DatasetNotFoundError, match=r"but .*/lists/x is, as ucf101: give that folder"):
        recognise(lay_out(tmp_path / "lists", lists, ["x/a/b/videos/Run/a.avi"]))
    with pytest.raises(DatasetNotFoundError, match=r"but .*/UCF-101 is, as class_folders: give that folder"):
        recognise(lay_out(tmp_path / "one", empty=["UCF-101/Run/a.avi", "UCF-101/Walk/b.avi"]))
    with pytest.raises(DatasetNotFoundError, match=r"first clip is Run/tom/a\.avi, and clips on no list must be"):
        recognise(lay_out(tmp_path / "deep", empty=["Run/tom/a.avi", "Walk/tom/b.avi"]))
