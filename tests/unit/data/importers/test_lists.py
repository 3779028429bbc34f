"""Text lists with numeric labels: mmaction2's, PySlowFast's, IBM's; and telling them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.frame_lists import read_frame_lists
from data.importers.path_lists import read_path_lists
from data.importers.registry import recognise

from .trees import by_id, frames, lay_out, sides


@pytest.mark.parametrize(
    ("train", "val", "folder"),
    [
        ("train.txt", "val.txt", ""),
        ("train.csv", "val.csv", "videos/"),
        ("kinetics400_train_list_videos.txt", "kinetics400_val_list_videos.txt", "videos_train/"),
        ("annotations/trainlist.txt", "annotations/vallist.txt", "videos/"),
        ("lists/ucf101_train_split_1_videos.txt", "lists/ucf101_val_split_1_videos.txt", ""),
    ],
)
@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_paths_and_labels(tmp_path: Path, train: str, val: str, folder: str, separator: str) -> None:
    lists = {
        train: f"Run/v_Run_g01_c01.avi{separator}0\nair drumming/b 2.avi{separator}1\n",
        val: f"Run/v_Run_g02_c01.avi{separator}0\n",
    }
    empty = [f"{folder}{name}" for name in ("Run/v_Run_g01_c01.avi", "air drumming/b 2.avi", "Run/v_Run_g02_c01.avi")]
    listing = read_path_lists(lay_out(tmp_path, lists, empty))
    assert recognise(tmp_path) == "path_lists"
    assert listing.class_names == ("Run", "air drumming")
    assert [clip.path for clip in listing.clips] == empty
    assert sides(listing) == {"Run/v_Run_g01_c01": "train", "air drumming/b 2": "train", "Run/v_Run_g02_c01": "test"}
    assert by_id(listing)["Run/v_Run_g01_c01"].group == "Run/g01"


def test_frame_counts_are_ignored_but_offsets_are_used(tmp_path: Path) -> None:
    empty = [n for name in ("a", "b") for n in frames(f"rawframes/{name}", name="img_%05d.jpg")]
    lay_out(tmp_path, {"x_train_list_rawframes.txt": "a 999 0\nb 3 1\n"}, empty)
    counted = by_id(read_path_lists(tmp_path))["a"]
    assert (counted.path, counted.kind, counted.frame_name) == ("rawframes/a", "frames", "img_%05d.jpg")
    assert (counted.start, counted.end) == (0, None)
    lay_out(tmp_path, {"x_train_list_rawframes.txt": "a 0 2 0\na 1 2 0\nb 0 3 1\n"})
    cuts = {clip.id: (clip.start, clip.end, clip.group) for clip in read_path_lists(tmp_path).clips}
    assert cuts == {"a@0+2": (0, 2, "a"), "a@1+2": (1, 3, "a"), "b@0+3": (0, 3, "b")}


def test_images_are_clips_too(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.txt": "cat/1.jpg 1\ndog/2.png 0\n"}, ["cat/1.jpg", "dog/2.png"])
    listing = read_path_lists(tmp_path)
    assert [clip.kind for clip in listing.clips] == ["image", "image"]
    assert listing.class_names == ("dog", "cat")


def test_numbered_lists_are_numbered_splits(tmp_path: Path) -> None:
    a, b = "Run/v_Run_g01_c01.avi", "Run/v_Run_g02_c01.avi"
    lists = {
        "ucf101_train_split_1_videos.txt": f"{a} 0\n",
        "ucf101_val_split_1_videos.txt": f"{b} 0\n",
        "ucf101_train_split_2_videos.txt": f"{b} 0\n",
        "ucf101_val_split_2_videos.txt": f"{a} 0\n",
    }
    clips = by_id(read_path_lists(lay_out(tmp_path, lists, [a, b])))
    assert clips["Run/v_Run_g01_c01"].official == ((1, "train"), (2, "test"))
    assert clips["Run/v_Run_g02_c01"].official == ((1, "test"), (2, "train"))


def test_without_folders_labels_are_numbers_and_a_label_map_names_them(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.txt": "a.mp4 2\nb.mp4 0\n"}, ["a.mp4", "b.mp4"])
    assert read_path_lists(tmp_path).class_names == ("0", "1", "2")
    lay_out(tmp_path, {"label_map.txt": "Run\nWalk\nSwim\nJump\n"})
    assert read_path_lists(tmp_path).class_names == ("Run", "Walk", "Swim", "Jump")
    lay_out(tmp_path, {"label_map.txt": "Run\nWalk\n"})
    with pytest.raises(DatasetFormatError, match=r"label 2 is listed, but .*label_map\.txt names 2 classes"):
        read_path_lists(tmp_path)


def test_a_very_high_label_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.txt": "a.mp4 123456789\n"}, ["a.mp4"])
    with pytest.raises(DatasetFormatError, match=r"label 123456789 is listed in .*and nothing names it"):
        read_path_lists(tmp_path)


@pytest.mark.parametrize("digits", ["²", "٣", "1" * 10, "1" * 5000])
def test_only_plain_digits_are_numbers(tmp_path: Path, digits: str) -> None:
    lay_out(tmp_path, {"train.txt": f"a.mp4 {digits}\n", "label_map.txt": "Run"})
    with pytest.raises(DatasetFormatError, match="has no label"):
        read_path_lists(tmp_path)
    with pytest.raises(DatasetFormatError, match="is not 'path start end label"):
        read_frame_lists(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../x.avi 0", "not a path below"),
        ("a/../../x.avi 0", "not a path below"),
        ("/data/x.avi 0", "is absolute"),
        ("C:\\data\\x.avi 0", "is absolute"),
        ("a.avi 1", "listed with other labels"),
        ("x.avi", "has no label"),
    ],
)
def test_a_line_that_is_not_valid_is_named(tmp_path: Path, line: str, message: str) -> None:
    lay_out(tmp_path, {"train.txt": f"a.avi 0\n{line}\n"}, ["a.avi"])
    with pytest.raises(DatasetFormatError, match=rf"train\.txt:\d: .*{message}"):
        read_path_lists(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    for read in (read_path_lists, read_frame_lists):
        with pytest.raises(DatasetNotFoundError, match=r"train\.txt"):
            read(tmp_path)
    lay_out(tmp_path, {"train.txt": "a.avi 0\n"})
    with pytest.raises(DatasetNotFoundError, match=r"has no a\.avi, nor any other listed path; tried videos/"):
        read_path_lists(tmp_path)


@pytest.mark.parametrize(("separator", "a", "b"), [(" ", "Run/a", "b"), (";", "air drumming/a", "b b")])
def test_first_and_last_frames(tmp_path: Path, separator: str, a: str, b: str) -> None:
    def line(*parts: object) -> str:
        return separator.join(str(part) for part in parts) + "\n"

    lists = {
        "train.txt": line(a, 1, 3, 0) + line(a, 3, 6, 1, 2),
        "val.txt": line(b, 1, 6, 0),
        "test.txt": line("c", 1, 6),
    }
    empty = (
        [n for folder in (a, b) for n in frames(folder, 6)] + frames(a, 5, "%05d_x.jpg") + frames(a, 5, "%05d_y.jpg")
    )
    listing = read_frame_lists(lay_out(tmp_path, lists, empty))
    assert recognise(tmp_path) == "frame_lists"
    clips = by_id(listing)
    first, second = clips[f"{a}@1-3"], clips[f"{a}@3-6"]
    assert (first.start, first.end, first.label, first.other_labels) == (0, 3, 0, ())
    assert (second.start, second.end, second.label, second.other_labels) == (2, 6, 1, (2,))
    assert (first.frame_name, first.kind, first.group) == ("%05d.jpg", "frames", second.group)
    assert first.flow is not None
    assert (tmp_path / (first.flow.x % 5)).is_file()
    assert sides(listing)[f"{b}@1-6"] == "test"
    assert "1 listed clips have no label and are left out" in listing.notes


@pytest.mark.parametrize("line", ["a 0 3 0", "a 3 2 0", "a 1 3", "a b c d"])
def test_an_invalid_segment_is_named(tmp_path: Path, line: str) -> None:
    lay_out(tmp_path, {"train.txt": f"a 1 3 0\n{line}\n"}, frames("a"))
    with pytest.raises(DatasetFormatError, match=r"train\.txt:2"):
        read_frame_lists(tmp_path)


@pytest.mark.parametrize(
    ("lines", "layout"),
    [
        ("a 1 3 0\nb 1 3 1\n", "frame_lists"),
        ("a;2;3;0\nb;2;3;1\n", "frame_lists"),
        ("a 2 3 0 1\nb 2 3 1\n", "frame_lists"),
        ("a 0 3 0\nb 1 3 1\n", "path_lists"),
        ("a 3 2 0\nb 1 3 1\n", "path_lists"),
    ],
)
def test_offsets_and_first_frames_are_distinguished(tmp_path: Path, lines: str, layout: str) -> None:
    assert recognise(lay_out(tmp_path, {"train.txt": lines}, frames("a") + frames("b"))) == layout


def test_an_ambiguous_list_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train.txt": "a 2 3 0\nb 1 3 1\n"}, frames("a") + frames("b"))
    with pytest.raises(DatasetFormatError, match="can be read as frame_lists and as path_lists: name the right layout"):
        recognise(tmp_path)
