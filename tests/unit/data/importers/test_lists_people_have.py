"""Lists as people have them: each is read or refused with its line, and none is ignored beside class folders."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.errors import DatasetError, DatasetFormatError
from data.importers.registry import LAYOUTS, importer, recognise
from data.index.listing import Listing
from data.scanning.measure import measure_clip
from data.scanning.scan import read_listing
from tests.unit.data.encoded import moving, write_frames

from .trees import by_id, frames, lay_out, sides

VIDEOS = ["Run/a.avi", "Run/b.avi", "Walk/c.avi", "Walk/d.avi"]


def read(root: Path) -> Listing:
    return importer(recognise(root))(root)


READ = {
    "column names": ("path,label\nRun/a.avi,0\nWalk/c.avi,1\n", "path,label\nRun/b.avi,0\nWalk/d.avi,1\n"),
    "a comment": ("# made by me\nRun/a.avi 0\nWalk/c.avi 1\n", "Run/b.avi 0\n# half of it\nWalk/d.avi 1\n"),
    "class names": ("Run/a.avi Run\nWalk/c.avi Walk\n", "Run/b.avi Run\nWalk/d.avi Walk\n"),
    "class names after commas": ("Run/a.avi,Run\nWalk/c.avi,Walk\n", "Run/b.avi,Run\nWalk/d.avi,Walk\n"),
    "numbers with a point": ("Run/a.avi 0.0\nWalk/c.avi 1.0\n", "Run/b.avi 0.0\nWalk/d.avi 1.0\n"),
    "semicolons": ("Run/a.avi;0\nWalk/c.avi;1\n", "Run/b.avi;0\nWalk/d.avi;1\n"),
    "tabs": ("Run/a.avi\t0\nWalk/c.avi\t1\n", "Run/b.avi\t0\nWalk/d.avi\t1\n"),
    "labels from 1": ("Run/a.avi 1\nWalk/c.avi 2\n", "Run/b.avi 1\nWalk/d.avi 2\n"),
    "quotes": ('"Run/a.avi",0\n"Walk/c.avi",1\n', '"Run/b.avi",0\n"Walk/d.avi",1\n'),
}


@pytest.mark.parametrize("lists", READ.values(), ids=READ)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_list_in_another_form_gives_the_same_clips(tmp_path: Path, lists: tuple[str, str], encoding: str) -> None:
    lay_out(tmp_path, empty=VIDEOS)
    for name, text in zip(("train.csv", "val.csv"), lists, strict=True):
        (tmp_path / name).write_bytes(text.encode(encoding))
    listing = read(tmp_path)
    assert listing.class_names == ("Run", "Walk")
    assert {clip.id: (clip.label, clip.path) for clip in listing.clips} == {
        name[:-4]: (name.startswith("W"), name) for name in VIDEOS
    }
    assert sides(listing) == {"Run/a": "train", "Walk/c": "train", "Run/b": "test", "Walk/d": "test"}


REFUSED = {
    "no label in one line": ("Run/a.avi 0\nWalk/c.avi\n", r"train\.csv:2: .*has no label"),
    "a label below zero": ("Run/a.avi 0\nWalk/c.avi -1\n", r"train\.csv:2: .*has no label that is a number from 0"),
    "two labels": ("Run/a.avi 0\nWalk/c.avi 0 1\n", r"train\.csv:2: .*2 numbers, and other lines have 1"),
    "two labels everywhere": ("Run/a.avi 0 1\nWalk/c.avi 1 0\n", r"train\.csv:1: 0 may be a number of frames"),
    "two suffixes": ("Run/a.avi 0\nRun/a.mp4 0\n", r"train\.csv:2: 'Run/a\.mp4' and 'Run/a\.avi' of .*train\.csv:1"),
    "one file under two labels": ("Run/a.avi 0\nRun/a.avi 1\n", r"train\.csv:2: .*other labels.* in .*train\.csv:1"),
    "train and test": ("Run/b.avi 0\nWalk/c.avi 1\n", r"val\.csv:1: .*two sides of split 1, also in .*train\.csv:1"),
    "a class on no list": ("Run/a.avi Run\nWalk/c.avi Swim\n", r"val\.csv:1: 0 is a number"),
}


@pytest.mark.parametrize(("train", "message"), REFUSED.values(), ids=REFUSED)
def test_a_list_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, train: str, message: str) -> None:
    lay_out(tmp_path, {"train.csv": train, "val.csv": "Run/b.avi 0\n"}, VIDEOS)
    with pytest.raises(DatasetFormatError, match=message):
        read(tmp_path)


UNREAD = {
    "ucfTrainTestlist/trainlist01.txt": "Run/a.avi 1\nWalk/c.avi 2\n",  # without classInd
    "deep/er/trainlist01.txt": "Run/a.avi 1\nWalk/c.avi 2\n",
    "testlist01": "Run/a.avi\n",
    "my_split.txt": "Run/a.avi; yes; 0\nWalk/c.avi; no; 1\n",
    "lists/train.json": '{"Run/a.avi": 0}',
    "train.txt": "a nothing\nb nothing\n",
}


@pytest.mark.parametrize("name", UNREAD)
def test_no_list_is_ignored_beside_class_folders(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, {name: UNREAD[name]}, VIDEOS)
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert name.rpartition("/")[2] in str(caught.value) or "no classInd.txt" in str(caught.value)
    layout, listing = read_listing(tmp_path, "class_folders")
    assert layout == "class_folders"
    assert any("look like lists of clips and are not read" in note and name in note for note in listing.notes)


def test_texts_that_are_no_lists_do_not_matter(tmp_path: Path) -> None:
    lay_out(tmp_path, {"README.txt": "Run well.\n", "Run/notes.txt": "seen\n", "classes.txt": "Run\nWalk\n"}, VIDEOS)
    assert recognise(tmp_path) == "class_folders"


def test_lists_of_tsm_are_read(tmp_path: Path) -> None:
    lists = {
        "category.txt": "Swiping\nStop\n",
        "train_videofolder.txt": "1 3 0\n2 3 1\n",
        "val_videofolder.txt": "3 3 1\n",
    }
    lay_out(tmp_path, lists, [path for n in "123" for path in frames(f"20bn-jester-v1/{n}")])
    listing = read(tmp_path)
    assert listing.class_names == ("Swiping", "Stop")
    assert {clip.id: (clip.path, clip.label) for clip in listing.clips} == {
        n: (f"20bn-jester-v1/{n}", n != "1") for n in "123"
    }


def test_lists_of_jester_are_read(tmp_path: Path) -> None:
    lists = {
        "jester-v1-labels.csv": "Swiping Left\nStop Sign\n",
        "jester-v1-train.csv": "1;Swiping Left\n2;Stop Sign\n",
        "jester-v1-validation.csv": "3;Stop Sign\n",
        "jester-v1-test.csv": "4\n",
    }
    lay_out(tmp_path, lists, [path for n in "1234" for path in frames(f"20bn-jester-v1/{n}")])
    listing = read(tmp_path)
    assert {clip.path: clip.label for clip in listing.clips} == {f"20bn-jester-v1/{n}": n != "1" for n in "123"}
    assert set(sides(listing).values()) == {"train", "test"}


def test_ucf_lists_are_found_as_their_archive_unpacks(tmp_path: Path) -> None:
    place = "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist"
    lists = {
        "classInd.txt": "1 Run\n2 Walk\n",
        "trainlist01.txt": "Run/a.avi\t1\nWalk/c 2\n",
        "testlist01.txt": "Run/b.mp4\n",
    }
    lay_out(tmp_path, {f"{place}/{name}": text for name, text in lists.items()}, [f"UCF-101/{v}" for v in VIDEOS])
    listing = read(tmp_path)
    assert {clip.path: clip.subset(1) for clip in listing.clips} == {
        "UCF-101/Run/a.avi": "train",
        "UCF-101/Walk/c.avi": "train",
        "UCF-101/Run/b.avi": "test",
    }


def test_hmdb_lists_and_folders_are_found_as_their_archives_unpack(tmp_path: Path) -> None:
    lists = {
        f"test_train_splits/testTrainMulti_7030_splits/{name}_test_split1.txt": text
        for name, text in {"run": "a.avi\t1\nb.avi\t2\n", "walk": "c 1\nd.avi 0\n"}.items()
    }
    lay_out(tmp_path, lists, ["hmdb51_org/run/run/a.avi", "hmdb51_org/run/run/b.avi", "hmdb51_org/walk/c.avi"])
    paths = {clip.id: clip.path for clip in read(tmp_path).clips}
    assert paths["run/a"] == "hmdb51_org/run/run/a.avi"
    assert paths["walk/c"] == "hmdb51_org/walk/c.avi"


@pytest.mark.parametrize("first", [0, 1])
def test_a_class_list_from_0_or_1_is_believed(tmp_path: Path, first: int) -> None:
    lists = {
        "ucfTrainTestlist/classInd.txt": f"{first} Run\n{first + 1} Walk\n",
        "ucfTrainTestlist/trainlist01.txt": f"Run/a.avi {first}\nWalk/c.avi {first + 1}\n",
    }
    listing = read(lay_out(tmp_path, lists, VIDEOS))
    assert {clip.class_name: clip.label for clip in listing.clips} == {"Run": 0, "Walk": 1}
    wrong = {"ucfTrainTestlist/trainlist01.txt": f"Run/a.avi {first + 1}\n"}
    with pytest.raises(
        DatasetFormatError, match=rf"label {first + 1} is not that of 'Run' in the class list, {first}$"
    ):
        LAYOUTS["ucf101"].read(lay_out(tmp_path, wrong))


@pytest.mark.parametrize("labels", [(1, 2), (0, 1)])
def test_a_numbered_class_list_does_not_shift_the_names(tmp_path: Path, labels: tuple[int, int]) -> None:
    train = f"x/a.avi {labels[0]}\nx/c.avi {labels[1]}\n"
    lay_out(tmp_path, {"train.txt": train, "classes.txt": "1 Run\n2 Walk\n"}, ["x/a.avi", "x/c.avi"])
    clips = by_id(read(tmp_path))
    assert (clips["x/a"].class_name, clips["x/c"].class_name) == ("Run", "Walk")


def test_both_unicode_forms_of_a_name_are_one_name(tmp_path: Path) -> None:
    composed, split = (unicodedata.normalize(form, "Übung/grün.avi") for form in ("NFC", "NFD"))
    assert composed != split
    for on_disk, listed in ((composed, split), (split, composed)):
        root = lay_out(tmp_path / str(len(on_disk)), {"train.txt": f"{listed} 0\nb.avi 1\n"}, [on_disk, "b.avi"])
        assert read(root).clips[0].path == on_disk
    lists = {"classInd.txt": f"1 {split.partition('/')[0]}\n", "trainlist01.txt": f"{split} 1\n"}
    root = lay_out(tmp_path / "ucf", lists, [composed])
    assert LAYOUTS["ucf101"].read(root).clips[0].path == composed


def test_a_circle_of_links_and_a_closed_folder_cost_themselves_only(tmp_path: Path) -> None:
    lay_out(tmp_path, empty=VIDEOS)
    (tmp_path / "Run" / "again").symlink_to("again")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "up").symlink_to(tmp_path)
    listing = read(tmp_path)
    assert {clip.path for clip in listing.clips} == set(VIDEOS)
    assert any("2 links that lead nowhere or folders that may not be read are left out" in n for n in listing.notes)


JSON_LISTS = {
    "cut annot": ("annotations/annot01.json", '{"a": {"cls": 1', r"annot01\.json is not JSON \(.*line 1 column 16"),
    "cut anywhere": ("data.json", '[{"video": "Run/a.avi", "la', r"data\.json is not JSON \(.*line 1 column 25"),
    "sides as keys": ("split1.json", '{"train": ["a", "c"], "test": ["b", "d"]}', "its form is not known"),
    "a side as a value": ("set.json", '{"clips": [{"name": "a", "subset": "Training"}]}', "its form is not known"),
    "names by side and class": (
        "mine.json",
        '{"train": {"Run": ["a"]}, "val": {"Run": ["b"]}}',
        "its form is not known",
    ),
    "names with sides": ("mine.json", '{"Run/a": {"split": "train"}, "c": {"split": "test"}}', "its form is not known"),
    "one side": ("mine.json", '{"subset": "test", "videos": {"b": 1}}', "its form is not known"),
    "cut sides": ("mine.json", '{"train": ["a", "c"], "te', r"mine\.json is not JSON"),
    "cut annotations": ("my_annotations.json", '{"a": 1', r"annotations\.json is not JSON"),
    "a list by its name": ("activity_net.v1-3.json", "[1, 2]", "its form is not known"),
    "another by its name": ("annotations/annot01.json", "[1, 2]", "its form is not known|annot01"),
    "paths": ("clips.json", '["Run/a.avi", "Walk/c.avi"]', "its form is not known"),
    "lines of JSON": ("data.jsonl", '{"video": "Run/a.avi"}\n{"video": "Walk/c.avi"}\n', "its form is not known"),
    "of one line": ("train/metadata.csv", "file_name,label\nx.mp4,0\n", "its form is not known"),
}


@pytest.mark.parametrize(("name", "text", "reason"), JSON_LISTS.values(), ids=JSON_LISTS)
def test_a_list_of_another_form_beside_class_folders_is_refused_with_its_place(
    name: str, text: str, reason: str, tmp_path: Path
) -> None:
    lay_out(tmp_path, {name: text}, VIDEOS)
    with pytest.raises(DatasetFormatError, match=rf"{Path(name).name} looks like a list of clips but .*{reason}"):
        read(tmp_path)


NO_LISTS = {
    "meta.json": '{"license": "cc", "set": "mine"}',
    "counts.json": '{"train": 9, "classes": ["Run"]}',
    "empty.json": "{}",
    "numbers.json": "[3]",
    "dataset_info.json": '{"split": "train", "splits": {"train": {"name": "train", "num_examples": 10}}}',
    "hydra.json": '{"train": {"lr": 0.1, "betas": [0.9, 0.99]}, "data": {"split": "train"}}',
    "results.json": '{"val": {"top1": 0.9, "Run": 0.8}, "train": [0.1, 0.2]}',
    "history.json": '{"train": [{"loss": 1.2, "epoch": 1}], "val": [{"loss": 1.4, "epoch": 1}]}',
    "config.json": '{"train": {"lr": 0.1,},}',
    "Run/a.json": '{"set": "test", "file": "a.avi"}',
    "Run/b.info.json": '{"train": ["x"], "clips": ["b.mp4"',
    "Walk/e.json": '{"subset": "test", "frames": ["00001.jpg"]}',
}


@pytest.mark.parametrize("name", NO_LISTS)
def test_other_json_beside_class_folders_is_no_list(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path, {name: NO_LISTS[name]}, [*VIDEOS, *frames("Walk/e")])
    assert len(read(tmp_path).clips) == 5


def test_sidecars_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, {f"{name[:-4]}.info.json": '{"title": "a walk"}' for name in VIDEOS}, VIDEOS)
    monkeypatch.setattr("data.importers.unread.read_json", lambda _: 1 / 0)
    assert len(read(tmp_path).clips) == 4


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A folder that other users may read, which a test's own folder is not."""
    folder = Path(tempfile.mkdtemp()).resolve()
    folder.chmod(0o755)
    closed = [parent for parent in folder.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if closed and os.geteuid() == 0:
        folder.rmdir()
        pytest.skip(f"other users may not enter {closed[0]}: set TMPDIR to a folder that they may")
    yield folder
    for place in (folder, *sorted(folder.rglob("*"))):
        place.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Have no privileges: to the superuser, nothing is closed."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("closed", ["a file", "a folder", "the files in a folder"])
@pytest.mark.parametrize("layout", ["class_folders", "path_lists"])
def test_what_may_not_be_read_costs_itself_only(layout: str, closed: str, others_folder: Path) -> None:
    lists = {"train.txt": "Run/a.avi 0\nWalk/a.avi 1\n", "val.txt": "Run/b.avi 0\nWalk/b.avi 1\n"}
    videos = ["Run/a.avi", "Run/b.avi", "Walk/a.avi", "Walk/b.avi"]
    root = lay_out(others_folder, lists if layout == "path_lists" else {}, videos)

    def measured() -> dict[str, str]:
        listing = read_listing(root, "auto", None)[1]
        return {clip.path: measure_clip(root, clip).note for clip in listing.clips}

    (root / "Run" / "b.avi").write_bytes(b"x")
    before = measured()
    assert set(before) == set(videos)
    place = root / ("Run/b.avi" if closed == "a file" else "Run")
    place.chmod(0o644 if closed == "the files in a folder" else 0)
    with as_nobody():
        notes = measured()
    assert [notes[name] for name in videos[2:]] == [before[name] for name in videos[2:]]
    assert notes.get("Run/b.avi") != before["Run/b.avi"]
    assert (notes.get("Run/a.avi") == before["Run/a.avi"]) == (closed == "a file")


@pytest.mark.parametrize("linked", [3, 0])
def test_a_frame_that_is_a_circle_of_links_costs_its_clip_only(linked: int, tmp_path: Path) -> None:
    for number, clip in enumerate(("Run/a", "Run/b", "Walk/a")):
        write_frames(tmp_path / clip, moving(6, 16, 16, seed=number))
    frame = sorted((tmp_path / "Run" / "a").iterdir())[linked]
    frame.unlink()
    frame.symlink_to(frame.name)
    found = {clip.path: measure_clip(tmp_path, clip).status for clip in read(tmp_path).clips}
    assert found == {"Run/a": "corrupt", "Run/b": "ok", "Walk/a": "ok"}
