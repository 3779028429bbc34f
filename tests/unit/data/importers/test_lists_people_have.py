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
    "other suffixes": ("Run/a.mp4 0\nWalk/c 1\n", "Run/b.AVI 0\nWalk/d.MOV 1\n"),
    "numbers and names": (
        "id,label,label_id\nRun/a.avi,Run,0\nWalk/c.avi,Walk,1\n",
        "id,label,label_id\nRun/b.avi,Run,0\nWalk/d.avi,Walk,1\n",
    ),
    "line ends of old systems": ("Run/a.avi 0\rWalk/c.avi 1", "Run/b.avi 0\rWalk/d.avi 1"),
    "quotes": ('"Run/a.avi",0\n"Walk/c.avi",1\n', '"Run/b.avi",0\n"Walk/d.avi",1\n'),
}


@pytest.mark.parametrize("lists", READ.values(), ids=READ)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
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
    "a label first": ("0 Run/a.avi\n1 Walk/c.avi\n", r"train\.csv:1: .*label before its path: name the columns"),
    "a name first": ("Run,Run/a.avi\nWalk,Walk/c.avi\n", r"train\.csv:1: .*label before its path"),
    "labels in one column": ("path,label\nRun/a.avi,0;1\nWalk/c.avi,1\n", r"train\.csv:2: .*several labels"),
    "another numbering": ("Run/a.avi 1\nWalk/c.avi 2\n", r"val\.csv:1: .* have label 0 here and 1 in .*train\.csv:1"),
    "a class on no list": ("Run/a.avi Run\nWalk/c.avi Swim\n", r"val\.csv:1: 0 is a number"),
}


@pytest.mark.parametrize(("train", "message"), REFUSED.values(), ids=REFUSED)
def test_a_list_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, train: str, message: str) -> None:
    val = "Run/b.avi 0\nWalk/d.avi 1\n" if "have label" in message else "Run/b.avi 0\n"
    lay_out(tmp_path, {"train.csv": train, "val.csv": val}, VIDEOS)
    with pytest.raises(DatasetFormatError, match=message):
        read(tmp_path)


def test_a_label_more_than_on_other_lines_is_no_number_of_frames(tmp_path: Path) -> None:
    text = "Run/a 3 0 1\nRun/b 3 0\nWalk/c 3 1\n"
    lay_out(tmp_path, {"train.txt": text}, [name for clip in ("Run/a", "Run/b", "Walk/c") for name in frames(clip)])
    with pytest.raises(DatasetFormatError, match=r"train\.txt:1: 'Run/a' is followed by more numbers, and other lines"):
        read(tmp_path)


@pytest.mark.parametrize("mark", " \t,;")
def test_first_and_last_frame_are_read_whatever_separates_them(tmp_path: Path, mark: str) -> None:
    text = mark.join(("Run/a", "1", "3", "0")) + "\n"
    lay_out(tmp_path, {"train.txt": text}, frames("Run/a"))
    (clip,) = read(tmp_path).clips
    assert (clip.path, clip.start, clip.end, clip.label) == ("Run/a", 0, 3, 0)


@pytest.mark.parametrize("folders", [("videos_train", "videos_val"), ("first", "second")])
def test_a_path_in_two_folders_is_refused(tmp_path: Path, folders: tuple[str, str]) -> None:
    lay_out(tmp_path, {"train.txt": "a.avi 0\n"}, [f"{folder}/a.avi" for folder in folders])
    with pytest.raises(DatasetFormatError, match=f"'a.avi' of a list is {folders[0]}/a.avi and {folders[1]}/a.avi"):
        read(tmp_path)
    lay_out(tmp_path, empty=["videos/a.avi"])
    assert read(tmp_path).clips[0].path == "videos/a.avi"


UNREAD = {
    "ucfTrainTestlist/trainlist01.txt": "Run/a.avi 1\nWalk/c.avi 2\n",  # without classInd
    "deep/er/trainlist01.txt": "Run/a.avi 1\nWalk/c.avi 2\n",
    "testlist01": "Run/a.avi\n",
    "my_split.txt": "Run/a.avi; yes; 0\nWalk/c.avi; no; 1\n",
    "lists/train.json": '{"Run/a.avi": 0}',
    "train.txt": "a nothing\nb nothing\n",
    "annotations/splits/v1/test.txt": "Run/b.avi 0\n",
    "test.txt": "",
    "annotation.csv": "id,class,set\nrun-a,Run,train\nrun-b,Run,test\n",
    "split1.txt": "run-a 1\nrun-b 2\n",
    "holdout.txt": "run-b\n",
    "folds.csv": "clip;fold\nRun/run-a;1\nRun/run-b;2\n",
    "splits.yaml": "train: [run-a]\ntest: [run-b]\n",
    "test.txt.gz": "packed",
    "my_splits.pkl": "pickled",
    "val.xlsx": "a table",
}


@pytest.mark.parametrize("name", UNREAD)
def test_no_list_is_ignored_beside_class_folders(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, {name: UNREAD[name]}, [*VIDEOS, "Run/run-a.avi", "Run/run-b.avi"])
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert name.rpartition("/")[2] in str(caught.value) or "no classInd.txt" in str(caught.value)
    layout, listing = read_listing(tmp_path, "class_folders")
    assert layout == "class_folders"
    assert any("look like lists of clips and are not read" in note and name in note for note in listing.notes)


def test_texts_that_are_no_lists_do_not_matter(tmp_path: Path) -> None:
    texts = {"README.txt": "Run a well.\n", "Run/notes.txt": "seen\n", "classes.txt": "Run\nWalk\n", "ids.txt": "0 1\n"}
    lay_out(tmp_path, {**texts, "train.zip": "the same, packed"}, [*VIDEOS, "Run/0.avi"])
    assert recognise(tmp_path) == "class_folders"


def test_a_check_names_lists_that_a_layout_with_lists_does_not_read(tmp_path: Path) -> None:
    lists = {"train.txt": "Run/a.avi 0\nWalk/c.avi 1\n", "splits/2/test.txt": "Run/b.avi 0\n"}
    lay_out(tmp_path, lists, VIDEOS)
    notes = read_listing(tmp_path, "auto", every_list=True)[1].notes
    assert [note for note in notes if "not read as path_lists" in note and "splits/2/test.txt" in note]
    assert not any("not read" in note for note in read_listing(tmp_path, "auto")[1].notes)


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


@pytest.mark.parametrize("videos", ["UCF-101", "UCF101/UCF-101", "my/UCF101/videos"])
def test_ucf_lists_are_found_as_their_archive_unpacks(tmp_path: Path, videos: str) -> None:
    place = "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist"
    lists = {
        "classInd.txt": "1 Run\n2 Walk\n",
        "trainlist01.txt": "Run/a.avi\t1\nWalk/c 2\n",
        "testlist01.txt": "Run/b.mp4\n",
    }
    lay_out(tmp_path, {f"{place}/{name}": text for name, text in lists.items()}, [f"{videos}/{v}" for v in VIDEOS])
    listing = read(tmp_path)
    assert {clip.path: clip.subset(1) for clip in listing.clips} == {
        f"{videos}/Run/a.avi": "train",
        f"{videos}/Walk/c.avi": "train",
        f"{videos}/Run/b.avi": "test",
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
    "folds": ("folds.json", '{"1": ["run-a", "run-b"]}', "its form is not known"),
    "clips and sides": ("s.json", '{"run-a": "train", "run-b": "test"}', "its form is not known"),
    "lines of JSON": ("data.jsonl", '{"video": "Run/a.avi"}\n{"video": "Walk/c.avi"}\n', "its form is not known"),
    "of one line": ("train/clips.csv", "file_name,label\nx.mp4,0\n", "its form is not known"),
}


@pytest.mark.parametrize(("name", "text", "reason"), JSON_LISTS.values(), ids=JSON_LISTS)
def test_a_list_of_another_form_beside_class_folders_is_refused_with_its_place(
    name: str, text: str, reason: str, tmp_path: Path
) -> None:
    lay_out(tmp_path, {name: text}, [*VIDEOS, "Run/run-a.avi", "Run/run-b.avi"])
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
    "shares.json": '{"val": {"0": 0.9, "1": 0.25}}',
    "config.json": '{"train": {"lr": 0.1,},}',
    "Run/a.json": '{"set": "test", "file": "a.avi"}',
    "Run/b.info.json": '{"train": ["x"], "clips": ["b.mp4"',
    "Walk/e.json": '{"subset": "test", "frames": ["00001.jpg"]}',
}


@pytest.mark.parametrize("name", NO_LISTS)
def test_other_json_beside_class_folders_is_no_list(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path, {name: NO_LISTS[name]}, [*VIDEOS, "Run/0.avi", *frames("Walk/e")])
    assert len(read(tmp_path).clips) == 6


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
