"""Plain class folders of videos, frame folders and images, with and without sides above them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data import scan
from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.class_folders import read_class_folders, read_training_validation
from data.importers.registry import recognise
from data.scanning.scan import read_listing
from tests.unit.data.encoded import moving, write_frames

from .trees import by_id, frames, lay_out, sides


@pytest.mark.parametrize("parent", ["", "videos/", "frames/", "images/"])
def test_every_kind_of_clip_is_found(tmp_path: Path, parent: str) -> None:
    empty = [
        f"{parent}Run/a.avi",
        f"{parent}Run/notes.txt",
        f"{parent}Swim/c.PNG",
        *frames(f"{parent}Walk/b", name="img_%05d.jpg"),
    ]
    listing = read_class_folders(lay_out(tmp_path, empty=empty))
    assert recognise(tmp_path) == "class_folders"
    assert listing.class_names == ("Run", "Swim", "Walk")
    clips = by_id(listing)
    found = {id_: (clip.kind, clip.path.removeprefix(parent), clip.frame_name) for id_, clip in clips.items()}
    assert found == {
        "Run/a": ("video", "Run/a.avi", ""),
        "Swim/c": ("image", "Swim/c.PNG", ""),
        "Walk/b": ("frames", "Walk/b", "img_%05d.jpg"),
    }
    assert set(sides(listing).values()) == {"train"}
    assert "alphabetical order" in listing.notes[0]


def test_flow_beside_the_frames_is_found(tmp_path: Path) -> None:
    files = [n for p in ("img", "flow_x", "flow_y") for n in frames("Run/100%", name=p + "_%05d.jpg")]
    (clip,) = read_class_folders(lay_out(tmp_path, empty=files)).clips
    assert clip.frame_name == "img_%05d.jpg"
    assert clip.flow is not None
    assert (clip.flow.x % 7, clip.flow.y % 7) == ("Run/100%/flow_x_00007.jpg", "Run/100%/flow_y_00007.jpg")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classInd.txt", "1 Walk\n2 Run\n3 Swim\n"),
        ("classes.txt", "Walk\nRun\nSwim\n"),
        ("labels.json", '{"Walk": "0", "Run": "1", "Swim": "2"}'),
        ("labels.json", '{"0": "Walk", "1": "Run", "2": "Swim"}'),
        ("annotations/my_label_map.txt", "0 Walk\n1 Run\n2 Swim\n"),
        ("labels.json", '["Walk", "Run", "Swim"]'),
    ],
)
def test_a_class_list_gives_the_labels_for_any_folders(tmp_path: Path, name: str, text: str) -> None:
    listing = read_class_folders(lay_out(tmp_path, {name: text}, ["Run/a.avi", "Walk/b.avi"]))
    assert listing.class_names == ("Walk", "Run", "Swim")
    assert {clip.class_name: clip.label for clip in listing.clips} == {"Run": 1, "Walk": 0}
    assert listing.notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 Walk\n3 Run\n", "without a gap"),
        ("1 Walk\nRun\n", "is not '<number> <class>'"),
        ("Run\nrun\n", "named twice"),
        ("Walk\n", "lacks class 'Run'"),
        ("\n", "contains no class"),
    ],
)
def test_a_class_list_that_is_not_valid_is_named(tmp_path: Path, text: str, message: str) -> None:
    lay_out(tmp_path, {"classes.txt": text}, ["Run/a.avi"])
    with pytest.raises(DatasetFormatError, match=rf"classes\.txt.*{message}"):
        read_class_folders(tmp_path)


def test_several_label_maps_are_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a_label_map.txt": "Run", "b_label_map.txt": "Run"}, ["Run/a.avi"])
    with pytest.raises(DatasetFormatError, match=r"a_label_map\.txt and b_label_map\.txt"):
        read_class_folders(tmp_path)


def test_sources_are_read_from_the_names_of_known_sets(tmp_path: Path) -> None:
    names = ["v_Run_g03_c02", "RATRACE_Run_f_nm_np1_fr_goo_37", "0wR5jVB-WPk_000417_000427", "mine"]
    listing = read_class_folders(lay_out(tmp_path, empty=[f"Run/{name}.avi" for name in names]))
    groups = {clip.id.removeprefix("Run/"): clip.group for clip in listing.clips}
    assert groups == dict(zip(names, ["Run/g03", "RATRACE", "0wR5jVB-WPk", "Run/mine"], strict=True))


def test_the_validation_folder_is_the_official_test_list(tmp_path: Path) -> None:
    empty = ["training/Run/a.avi", "training/Walk/b.avi", "validation/Run/a.avi", "validation/Swim/c.avi"]
    listing = read_training_validation(lay_out(tmp_path, empty=empty))
    assert recognise(tmp_path) == "training_validation"
    assert listing.class_names == ("Run", "Swim", "Walk")
    assert sides(listing) == {
        "training/Run/a": "train",
        "training/Walk/b": "train",
        "validation/Run/a": "test",
        "validation/Swim/c": "test",
    }
    assert "sealed as the official test list" in listing.notes[0]


def test_beside_a_test_folder_validation_is_validation(tmp_path: Path) -> None:
    empty = ["train/Run/a.avi", "val/Run/b.avi", "test/Run/c.avi"]
    assert list(sides(read_training_validation(lay_out(tmp_path, empty=empty))).values()) == [
        "train",
        "validation",
        "test",
    ]


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no class folders"):
        read_class_folders(tmp_path)
    lay_out(tmp_path, empty=["training/Run/a.avi"])
    with pytest.raises(DatasetNotFoundError, match="lacks class folders in training/ and in validation/"):
        read_training_validation(tmp_path)


def test_previews_and_sound_beside_videos_are_no_clips(tmp_path: Path) -> None:
    empty = ["Run/1.mp4", "Run/1.gif", "Run/2.ogg", "Walk/3.gif", "Walk/4.ogg", *frames("Swim/5"), "Swim/5.gif"]
    listing = read_class_folders(lay_out(tmp_path, empty=empty))
    assert {clip.path for clip in listing.clips} == {"Run/1.mp4", "Walk/3.gif", "Walk/4.ogg", "Swim/5"}
    assert any("3 pictures or deeper files beside clips are not used, e.g. Run/1.gif" in note for note in listing.notes)


def test_clips_of_one_name_are_problems_and_the_others_are_used(tmp_path: Path) -> None:
    for number, name in enumerate(("Run/1", "Run/2", "Walk/3", "Walk/4")):
        write_frames(tmp_path / name, moving(6, 16, 16, seed=number))
    (tmp_path / "Run" / "1.mp4").write_bytes(b"a video")
    index = scan(tmp_path)
    assert [clip.id for clip in index.usable] == ["Run/2", "Walk/3", "Walk/4"]
    why = "its name stands for two clips, 'Run/1' and 'Run/1.mp4': remove or rename one of the two"
    assert {problem.path: problem.note for problem in index.problems()} == {"Run/1": why, "Run/1.mp4": why}
    assert any("2 clips are left out, each beside one of its name, e.g. Run/1" in note for note in index.notes)


def test_a_class_without_a_clip_of_its_own_name_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, empty=["Jump/a.avi", "Jump/a.mp4", "Run/a.mp4", "Run/b.mp4"])
    message = r"in class 'Jump': Jump/a\.avi: its name stands for two clips, 'Jump/a\.avi' and 'Jump/a\.mp4'"
    with pytest.raises(DatasetFormatError, match=message):
        read_class_folders(tmp_path)
    assert len(read_class_folders(lay_out(tmp_path, empty=["Jump/b.avi"])).clips) == 5


def test_folders_of_frames_are_not_read_again_for_each_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a large set of frames costs what reading its folders costs."""
    lay_out(tmp_path, empty=[name for clip in "abc" for name in frames(f"Run/{clip}")])
    read: Counter[str] = Counter()

    def counted(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def of(folder: Any) -> Any:
            read[str(folder)] += 1
            return function(folder)

        return of

    monkeypatch.setattr("os.scandir", counted(os.scandir))
    monkeypatch.setattr("os.listdir", counted(os.listdir))
    assert len(read_listing(tmp_path, "auto")[1].clips) == 3
    # To look for lists of each layout, to see that the first class holds clips, and to name its frames.
    assert read[str(tmp_path / "Run" / "b")] <= 9


def test_a_file_without_bytes_does_not_stand_for_its_name(tmp_path: Path) -> None:
    lay_out(tmp_path, {"Run/a.webm": "a video", "Walk/b.avi": "a video"}, ["Run/a.mp4"])
    listing = read_class_folders(tmp_path)
    assert listing.problems == {"Run/a.mp4": "it has no bytes, and 'Run/a.webm' is used: remove it"}
    assert by_id(listing)["Run/a"].path == "Run/a.webm"


def test_other_and_deeper_files_are_counted(tmp_path: Path) -> None:
    deeper = ["Run/x/b.avi", "Run/x/y/c.avi", "Run/a.wav", "Run/a.avi.part"]
    notes = read_class_folders(lay_out(tmp_path, empty=["Run/a.avi", *deeper])).notes
    assert "2 pictures or deeper files beside clips are not used, e.g. Run/x/b.avi" in notes
    assert "2 other files are not used (.part, .wav), e.g. Run/a.avi.part" in notes


def test_a_class_list_and_folders_may_differ_in_case_and_unicode_form(tmp_path: Path) -> None:
    folder = unicodedata.normalize("NFD", "Übung")
    listing = read_class_folders(lay_out(tmp_path, {"classes.txt": "run\nÜbung\n"}, [f"{folder}/a.avi", "Run/b.avi"]))
    assert listing.class_names == ("run", "Übung")
    assert {clip.path: clip.label for clip in listing.clips} == {f"{folder}/a.avi": 1, "Run/b.avi": 0}


@pytest.mark.parametrize(
    "text", ["1. Walk\n2. Run\n", "id,name\n0,Walk\n1,Run\n", "1\tWalk\n2\tRun\n", "0: Walk\n1: Run\n"]
)
def test_a_class_list_is_read_in_many_forms(tmp_path: Path, text: str) -> None:
    lay_out(tmp_path, {"classes.csv": text}, ["Walk/a.avi", "Run/b.avi"])
    assert read_class_folders(tmp_path).class_names == ("Walk", "Run")


def test_two_class_lists_that_number_the_same_classes_differently_are_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"classes.txt": "Walk\nRun\n", "labels.txt": "Run\nWalk\n"}, ["Walk/a.avi", "Run/b.avi"])
    with pytest.raises(DatasetFormatError, match=r"classes\.txt and labels\.txt number the same classes differently"):
        read_class_folders(tmp_path)
