"""Kinetics lists: wherever the trimmed files lie, whatever is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.kinetics import read_kinetics
from data.importers.registry import recognise

from .trees import by_id, frames, lay_out, sides

HEAD = "label,youtube_id,time_start,time_end,split,is_cc\n"
TRAIN = HEAD + '"air drumming",aaaaaaaaaaa,5,15,train,0\nabseiling,-bbbbbbbbb_,110.0,120.0,train,0\n'
VAL = HEAD + "abseiling,ccccccccccc,0,10,val,0\n"
STEMS = ("aaaaaaaaaaa_000005_000015", "-bbbbbbbbb__000110_000120", "ccccccccccc_000000_000010")
A, B, C = STEMS


@pytest.mark.parametrize(
    "folders",
    [
        ("", "", ""),
        ("air drumming/", "abseiling/", "abseiling/"),
        ("train/air_drumming/", "train/abseiling/", "val/abseiling/"),
        ("train/", "train/", "val/"),
        ("videos/train/air drumming/", "videos/train/abseiling/", "videos/val/abseiling/"),
    ],
)
@pytest.mark.parametrize("lists", ["", "annotations/"])
def test_files_are_found_by_name(tmp_path: Path, folders: tuple[str, ...], lists: str) -> None:
    empty = [f"{folder}{stem}.mp4" for folder, stem in zip(folders, STEMS, strict=True)]
    listing = read_kinetics(lay_out(tmp_path, {f"{lists}train.csv": TRAIN, f"{lists}val.csv": VAL}, empty))
    assert recognise(tmp_path) == "kinetics"
    assert listing.class_names == ("abseiling", "air drumming")
    assert sides(listing) == {f"air drumming/{A}": "train", f"abseiling/{B}": "train", f"abseiling/{C}": "test"}
    assert by_id(listing)[f"air drumming/{A}"].group == "aaaaaaaaaaa"
    assert [clip.path for clip in listing.clips] == empty


@pytest.mark.parametrize("mark", ",;\t")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_separators_encodings_and_spellings_are_read(tmp_path: Path, mark: str, encoding: str) -> None:
    train = TRAIN.replace("label,youtube_id", "Label, YouTube_ID").replace(",", mark)
    (tmp_path / "train.csv").write_bytes(train.encode(encoding))
    lay_out(tmp_path, empty=["v/aaaaaaaaaaa_5_15.mp4", f"v/{B}.mp4"])
    assert recognise(tmp_path) == "kinetics"
    assert [clip.path for clip in read_kinetics(tmp_path).clips] == ["v/aaaaaaaaaaa_5_15.mp4", f"v/{B}.mp4"]


def test_pictures_of_the_videos_hide_no_class(tmp_path: Path) -> None:
    pictures = [f"train/abseiling/{n}.jpg" for n in range(9)]
    lay_out(tmp_path, {"train.csv": TRAIN}, [f"train/air drumming/{A}.mp4", f"train/abseiling/{B}.mp4", *pictures])
    assert {clip.class_name for clip in read_kinetics(tmp_path).clips} == {"abseiling", "air drumming"}


def test_files_of_other_names_are_shown_with_the_mend(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.csv": TRAIN}, ["videos/aaaaaaaaaaa.mp4"])
    with pytest.raises(DatasetNotFoundError, match=rf"there is videos/aaaaaaaaaaa\.mp4: call .* such as {A}\.mp4"):
        read_kinetics(tmp_path)


def test_missing_videos_are_one_note_and_do_not_change_the_labels(tmp_path: Path) -> None:
    many = "".join(f"yodeling,{number:011d},0,10,train,0\n" for number in range(2000))
    lay_out(tmp_path, {"train.csv": TRAIN + many, "val.csv": VAL}, [f"{A}.mp4"])
    listing = read_kinetics(tmp_path)
    assert listing.class_names == ("abseiling", "air drumming", "yodeling")
    assert [(clip.id, clip.label) for clip in listing.clips] == [(f"air drumming/{A}", 1)]
    assert listing.notes[-1].startswith("2002 of 2003 listed clips are missing")


def test_a_labelled_test_list_makes_validation_validation(tmp_path: Path) -> None:
    test = VAL.replace("ccccccccccc", "ddddddddddd").replace(",val,", ",test,")
    empty = [f"{stem}.mp4" for stem in (*STEMS, "ddddddddddd_000000_000010")]
    listing = read_kinetics(lay_out(tmp_path, {"train.csv": TRAIN, "val.csv": VAL, "test.csv": test}, empty))
    assert sorted(side or "" for side in sides(listing).values()) == ["test", "train", "train", "validation"]


def test_a_test_list_without_labels_is_left_out_with_a_note(tmp_path: Path) -> None:
    test = "youtube_id,time_start,time_end,split\nddddddddddd,0,10,test\n"
    lay_out(tmp_path, {"train.csv": TRAIN, "val.csv": VAL, "test.csv": test}, [f"{s}.mp4" for s in STEMS])
    listing = read_kinetics(tmp_path)
    assert sides(listing)[f"abseiling/{C}"] == "test"
    assert "1 listed clips have no label and are left out" in listing.notes


def test_of_two_classes_of_one_segment_each_takes_its_own_file(tmp_path: Path) -> None:
    train = HEAD + "abseiling,aaaaaaaaaaa,5,15,train,0\nyodeling,aaaaaaaaaaa,5,15,train,0\n"
    lay_out(tmp_path, {"train.csv": train}, [f"yodeling/{A}.mp4", f"abseiling/{A}.mp4"])
    assert {clip.class_name: clip.path for clip in read_kinetics(tmp_path).clips} == {
        "abseiling": f"abseiling/{A}.mp4",
        "yodeling": f"yodeling/{A}.mp4",
    }


def test_frames_are_found_too(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.csv": TRAIN}, frames(f"train/air drumming/{A}", name="img_%05d.jpg"))
    (clip,) = read_kinetics(tmp_path).clips
    assert (clip.kind, clip.frame_name) == ("frames", "img_%05d.jpg")


def test_a_label_map_gives_the_labels(tmp_path: Path, shared_data: Path) -> None:
    names = (shared_data / "splits" / "kinetics" / "mmaction2_kinetics_label_map_k400.txt").read_text()
    lay_out(tmp_path, {"train.csv": TRAIN, "kinetics_label_map_k400.txt": names}, [f"{A}.mp4"])
    listing = read_kinetics(tmp_path)
    assert len(listing.class_names) == 400
    assert (listing.clips[0].class_name, listing.clips[0].label) == ("air drumming", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abseiling,../../etc,0,10,train,0", "'../../etc' is not a YouTube id"),
        ("abseiling,ccccccccccc,x,10,train,0", "'x' is not a number of seconds"),
        ("abseiling,ccccccccccc,0,nan,train,0", "'nan' is not a number of seconds"),
        ("abseiling,ccccccccccc,0", "has 3 columns, not the 6 that the first line names"),
        ("abseiling,ccccccccccc,0,10,train,0,0", "has more columns than the first line names"),
        ("abseiling,ccccccccccc,0,10,held out,0", "'held out' is not a side: it must be train, val or test"),
    ],
)
def test_a_line_that_is_not_valid_is_named(tmp_path: Path, line: str, message: str) -> None:
    lay_out(tmp_path, {"train.csv": TRAIN + line + "\n"})
    with pytest.raises(DatasetFormatError, match=rf"train\.csv:4: {message}"):
        read_kinetics(tmp_path)


def test_a_line_without_end_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.csv": TRAIN + "x" * 200_000})
    with pytest.raises(DatasetFormatError, match=r"train\.csv:\d: is not CSV"):
        read_kinetics(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no CSV list"):
        read_kinetics(tmp_path)
    lay_out(tmp_path, {"train.csv": TRAIN})
    with pytest.raises(DatasetNotFoundError, match="none of the 2 listed videos"):
        read_kinetics(tmp_path)
