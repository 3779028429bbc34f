"""Columns of lists: named ones are read by their names, and none is taken for a label by its place alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import DatasetFormatError
from data.importers.frame_lists import read_frame_lists
from data.importers.path_lists import is_path_lists, read_path_lists
from data.importers.registry import recognise
from data.index.listing import Listing
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving

from .trees import by_id, frames, lay_out

FRAMES = [name for folder in ("a/1", "a/2", "b/3") for name in frames(folder)]
VIDEOS = ["a/1.avi", "a/2.avi", "b/3.avi"]


def read(root: Path) -> Listing:
    assert recognise(root) == "path_lists"
    return read_path_lists(root)


NAMED_COLUMNS = {
    "a count last": "path,label,num_frames\na/1,0,25\na/2,0,30\nb/3,1,25\n",
    "a label first": "label,path\n0,a/1\n0,a/2\n1,b/3\n",
    "a count between": "path num_frames label\na/1 25 0\na/2 30 0\nb/3 25 1\n",
    "an unknown column": "path,label,fold\na/1,0,4\na/2,0,5\nb/3,1,4\n",
    "a number and a name": "class_name\tlabel\tpath\ta\nRun\t0\ta/1\t9\nRun\t0\ta/2\t9\nWalk\t1\tb/3\t9\n",
    "text": "path,label,num_frames\na/1,a,25\na/2,a,30\nb/3,b,25\n",
    "an id beside the file": "id,file,label\n7,a/1,0\n8,a/2,0\n9,b/3,1\n",
}


@pytest.mark.parametrize("text", NAMED_COLUMNS.values(), ids=NAMED_COLUMNS)
def test_named_columns_are_read_by_their_names(tmp_path: Path, text: str) -> None:
    listing = read(lay_out(tmp_path, {"train.csv": text}, FRAMES))
    assert listing.class_names == (("Run", "Walk") if "class_name" in text else ("a", "b"))
    assert {clip.path: clip.label for clip in listing.clips} == {"a/1": 0, "a/2": 0, "b/3": 1}


def test_seconds_of_named_columns_are_no_part_of_the_class(tmp_path: Path) -> None:
    text = 'video,label,seconds\na/1.avi,Archery,10.5\nb/3.avi,"Run, fast",3\n'
    listing = read(lay_out(tmp_path, {"train.csv": text}, VIDEOS))
    assert {clip.path: clip.class_name for clip in listing.clips} == {"a/1.avi": "Archery", "b/3.avi": "Run, fast"}


def test_offset_and_count_are_found_by_their_names(tmp_path: Path) -> None:
    text = "label,path,num_frames,offset\n0,a/1,2,1\n1,b/3,3,0\n"
    clips = by_id(read(lay_out(tmp_path, {"train.csv": text}, FRAMES)))
    assert {id_: (clip.start, clip.end, clip.label) for id_, clip in clips.items()} == {
        "a/1@1+2": (1, 3, 0),
        "b/3@0+3": (0, 3, 1),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na/1.avi,Archery,train\n", r"train\.csv:2: .*has 3 columns, and .*train\.csv:1 names 2"),
        ("label,offset\n0,1\n", r"train\.csv:1 names no column of paths"),
        ("path,category,label\na/1.avi,0,1\n", r"train\.csv:1 names several columns of labels, category and label"),
        ("path,start,end,label\na/1.avi,3,9,0\n", r"train\.csv:1: segments are read from the columns offset"),
        ("path,label\na/1.avi,-1\n", r"train\.csv:2: .*has no label that is a number from 0"),
        ("a/1.avi,Archery,train\n", r"train\.csv:1: .*columns besides a path and a class: name the columns"),
        ("a/1.avi,Archery,10.5\n", r"train\.csv:1: .*columns besides"),
        ("a/1.avi 250 Archery\n", r"train\.csv:1: .*columns besides"),
        ("a/1.avi 2.5 Archery\n", r"train\.csv:1: .*columns besides"),
        ("a/1.avi,Archery\nb/3.avi\tArchery\ttrain\n", r"train\.csv:2: .*columns besides"),
        ("a/1.avi;Archery;25\n", r"train\.csv:1: .*text between its path and its numbers"),
        ("a/1,Archery,train\n", r"train\.csv:1: .*columns besides"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_refused(tmp_path: Path, text: str, message: str) -> None:
    lay_out(tmp_path, {"train.csv": text}, VIDEOS)
    with pytest.raises(DatasetFormatError, match=message):
        read_path_lists(tmp_path)


@pytest.mark.parametrize(("first", "last"), [(0, 2), (1, 3)])
def test_class_folders_say_whether_labels_count_from_0(tmp_path: Path, first: int, last: int) -> None:
    """The class list counts from 1, and no clip is of the first class."""
    lists = {
        "classInd.txt": "1 Air_Swim\n2 Run\n3 Walk\n",
        "train.txt": f"Run/a.avi {first + 1}\nWalk/b.avi {last}\n",
    }
    clips = by_id(read_path_lists(lay_out(tmp_path, lists, ["Run/a.avi", "Walk/b.avi"])))
    assert {id_: clip.class_name for id_, clip in clips.items()} == {"Run/a": "Run", "Walk/b": "Walk"}


@pytest.mark.parametrize("text", ["Run/a.avi 2\nWalk/b.avi 2\n", "Run/a.avi 3\nWalk/b.avi 1\n", "Run/a.avi 4\n"])
def test_labels_that_are_not_those_of_the_folders_are_refused(tmp_path: Path, text: str) -> None:
    lists = {"classInd.txt": "1 Swim\n2 Run\n3 Walk\n4 Jump\n5 Fly\n", "train.txt": text}
    lay_out(tmp_path, lists, ["Run/a.avi", "Walk/b.avi"])
    with pytest.raises(DatasetFormatError, match=r"is not that of its folder in .*classInd\.txt, whether labels count"):
        read_path_lists(tmp_path)


@pytest.mark.parametrize("text", ["1.avi 5 2\n3.avi 7 1\n4.avi 6 0\n", "1.avi 0 1\n3.avi 1 0\n4.avi 1 1\n"])
def test_a_second_label_is_not_taken_for_a_number_of_frames(tmp_path: Path, text: str) -> None:
    lay_out(tmp_path, {"train.txt": text})
    for name in "134":
        write_video(tmp_path / f"{name}.avi", moving(12, 32, 32))
    with pytest.raises(DatasetFormatError, match=r"train\.txt:1: .*a further label .*path,num_frames,label"):
        read_path_lists(tmp_path)


@pytest.mark.parametrize("header", ["", "video num_frames label\n"])
def test_numbers_of_frames_are_known_by_the_videos_or_by_their_column(tmp_path: Path, header: str) -> None:
    lay_out(tmp_path, {"train.txt": f"{header}1.avi 12 14\n2.avi 12 15\n"})
    for name in "12":
        write_video(tmp_path / f"{name}.avi", moving(12, 32, 32))
    assert {clip.id: clip.class_name for clip in read_path_lists(tmp_path).clips} == {"1": "14", "2": "15"}


def test_folders_do_not_judge_clips_of_several_labels(tmp_path: Path) -> None:
    lists = {"classes.txt": "1 Swim\n2 Run\n3 Walk\n", "train.txt": "Run/a 1 3 3 2\nRun/b 1 3 2\n"}
    clips = by_id(read_frame_lists(lay_out(tmp_path, lists, [*frames("Run/a"), *frames("Run/b")])))
    assert {id_: clip.class_name for id_, clip in clips.items()} == {"Run/a@1-3": "Walk", "Run/b@1-3": "Run"}


def test_column_names_of_first_and_last_frames(tmp_path: Path) -> None:
    lists = {"train.txt": "path start end label\na/1 2 3 0\nb/3 1 3 1\n", "test.txt": "path start end\na/2 1 3\n"}
    clips = by_id(read_frame_lists(lay_out(tmp_path, lists, FRAMES)))
    assert recognise(tmp_path) == "frame_lists"
    assert {id_: (clip.start, clip.label) for id_, clip in clips.items()} == {"a/1@2-3": (1, 0), "b/3@1-3": (0, 1)}
    lay_out(tmp_path, {"train.txt": "path label start end\na/1 2 3 0\n"})
    with pytest.raises(DatasetFormatError, match=r"train\.txt:1 does not name the columns path, start, end and label"):
        read_frame_lists(tmp_path)


def test_columns_of_kinetics_are_left_to_its_layout(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.csv": "label,youtube_id,time_start,time_end,id\nRun,abc,0,10,7\n"}, ["abc.mp4"])
    assert not is_path_lists(tmp_path)
