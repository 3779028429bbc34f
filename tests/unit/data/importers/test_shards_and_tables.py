"""WebDataset, videofolder and Parquet as people publish them: labels, sides, groups; each mistake in one sentence."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from data.errors import DatasetError, DatasetFormatError, DatasetNotFoundError
from data.importers.registry import LAYOUTS, recognise
from data.importers.samples import missing_notes, side_of

from .trees import by_id, lay_out, sides, write_table, write_tar

Member = tuple[str, bytes]


def shard(root: Path, name: str, *members: tuple[str, str]) -> Path:
    return write_tar(root / name, [(member, text.encode()) for member, text in members])


def sample(key: str, label: object = 0, **about: object) -> tuple[tuple[str, str], ...]:
    return (f"{key}.mp4", f"video of {key}"), (f"{key}.json", json.dumps({"label": label, **about}))


def refusal(layout: str, root: Path) -> str:
    with pytest.raises(DatasetError) as error:
        LAYOUTS[layout].read(root)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("train-000001.tar", "train"),
        ("ucf101-val-000.tar", "validation"),
        ("data/validation-00000-of-00002.parquet", "validation"),
        ("test/000000.tar", "test"),
        ("training/eval_1.tar", "test"),
        ("trainer-1.tar", ""),
        ("000.tar", ""),
    ],
)
def test_the_name_of_a_file_or_of_the_nearest_folder_says_the_side(name: str, side: str, tmp_path: Path) -> None:
    assert side_of(tmp_path / name, tmp_path) == side


def test_labels_are_in_cls_in_json_or_in_text(tmp_path: Path) -> None:
    names = {"a.mp4": "", "a.cls": "Walk", "b.AVI": "", "b.txt": "Run\n", "c.webm": "", "c.json": '{"class": "Walk"}'}
    shard(tmp_path, "0.tar", *names.items(), ("d.mp4", ""), ("d.json", '"Run"'))
    listing = LAYOUTS["webdataset"].read(tmp_path)
    assert listing.class_names == ("Run", "Walk")
    assert {id_: clip.label for id_, clip in by_id(listing).items()} == {"0/a": 1, "0/b": 0, "0/c": 1, "0/d": 0}


def test_numbers_are_named_by_the_json_or_by_a_class_list(tmp_path: Path) -> None:
    shard(tmp_path, "0.tar", *sample("a", 0, class_name="Run"), *sample("b", 2, class_name="Walk"))
    assert LAYOUTS["webdataset"].read(tmp_path).class_names == ("Run", "1", "Walk")
    lay_out(tmp_path, {"classes.txt": "Run\nJump\nWalk\n"})
    assert LAYOUTS["webdataset"].read(tmp_path).class_names == ("Run", "Jump", "Walk")
    shard(tmp_path, "1.tar", *sample("c", 3))
    assert f"{tmp_path}/1.tar: sample 'c': 3 is not the number of a class" in refusal("webdataset", tmp_path)


def test_labels_that_count_from_one_are_shown_to(tmp_path: Path) -> None:
    shard(tmp_path, "0.tar", *sample("a", 1), *sample("b", 2))
    listing = LAYOUTS["webdataset"].read(tmp_path)
    assert [clip.label for clip in listing.clips] == [0, 1]
    assert listing.class_names == ("1", "2")
    assert any("count from 1" in note for note in listing.notes)


def test_what_belongs_together_stays_together(tmp_path: Path) -> None:
    members = (*sample("x", 0, group="film"), *sample("y", 1, youtube_id="film"), *sample("v_Run_g07_c01", 0))
    shard(tmp_path, "train-0.tar", *members)
    found = {clip.id: clip.group for clip in LAYOUTS["webdataset"].read(tmp_path).clips}
    assert found == {"train-0/x": "film", "train-0/y": "film", "train-0/v_Run_g07_c01": "0/g07"}


def test_shards_are_on_the_sides_that_their_names_say(tmp_path: Path) -> None:
    for side in ("train", "val", "test"):
        for number in range(2):
            shard(tmp_path, f"{side}-{number:06d}.tar", *sample("same", number))
    listing = LAYOUTS["webdataset"].read(tmp_path)
    assert sides(listing)["val-000001/same"] == "validation"
    assert sides(listing)["test-000000/same"] == "test"
    assert any("5 names of samples are in several shards" in note for note in listing.notes)
    shard(tmp_path, "more.tar", *sample("z", 0))
    assert f"{tmp_path}/more.tar: sample 'z' is on no side" in refusal("webdataset", tmp_path)


def test_a_test_list_without_labels_is_left_out(tmp_path: Path) -> None:
    shard(tmp_path, "train-0.tar", *sample("a", 0), *sample("b", 1))
    shard(tmp_path, "test-0.tar", ("c.mp4", "x"))
    listing = LAYOUTS["webdataset"].read(tmp_path)
    assert set(by_id(listing)) == {"train-0/a", "train-0/b"}
    assert "1 samples have no label and are left out" in listing.notes


def test_a_shard_that_was_cut_is_named_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = shard(tmp_path, "0.tar", *sample("a", 0), *sample("b", 1)).read_bytes()
    with tarfile.open(tmp_path / "0.tar") as tar:
        ends = [info.offset_data + info.size for info in tar]
    for end in (*ends, ends[-1] - 1, ends[0] - 3, 512 * 4, 512 * 4 + 100, 512 * 8):
        (tmp_path / "0.tar").write_bytes(whole[:end])
        message = refusal("webdataset", tmp_path)
        assert f"{tmp_path}/0.tar" in message
        assert "copy the shard again" in message


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ((("a.mp4", "x"), ("b.mp4", "x"), ("b.cls", "1")), "0.tar: sample 'a' has no label"),
        ((*sample("a"), *sample("a")), "0.tar holds two files .mp4 or videos of the sample 'a'"),
        ((*sample("a"), ("a.avi", "x")), "0.tar holds two files .avi or videos of the sample 'a'"),
        ((*sample("a", 0), ("a.cls", "1")), "sample 'a': its .cls is 1, its .json 0"),
        ((("a.mp4", "x"), ("a.json", "{")), "0.tar: sample 'a': its .json is not JSON"),
        ((*sample("a", [1, 2]),), "sample 'a': label is [1, 2]"),
        ((*sample("a", "Run"), *sample("b", 1)), "'a' has the label 'Run', and"),
        ((*sample("a", -1),), "sample 'a': -1 is not the number of a class"),
        (
            (*sample("a", 0, class_name="Run"), *sample("b", 0, class_name="Walk")),
            "sample 'b': class 0 is 'Walk', and 'Run' in",
        ),
        (
            tuple(
                part
                for key in "abc"
                for part in ((f"{key}.mp4", "x"), (f"{key}.txt", f"somebody walks past tree {key}"))
            ),
            "these are no classes",
        ),
    ],
)
def test_a_mistake_in_a_shard_is_named_with_shard_and_sample(
    members: tuple[tuple[str, str], ...], expected: str, tmp_path: Path
) -> None:
    shard(tmp_path, "0.tar", *members)
    assert expected in refusal("webdataset", tmp_path)


def test_a_label_that_is_not_utf_8_is_refused_and_not_guessed(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.mp4", b"x"), ("a.cls", "Üben".encode("latin-1"))])
    assert "0.tar: sample 'a': its .cls is not text in UTF-8 (byte 0); write it anew" in refusal("webdataset", tmp_path)
    caption = ("a.txt", "größer".encode("latin-1"))  # which is not asked
    write_tar(tmp_path / "0.tar", [("a.mp4", b"x"), caption, ("a.cls", "\ufeffÜben".encode())])
    assert LAYOUTS["webdataset"].read(tmp_path).class_names == ("Üben",)


def test_a_sample_without_a_video_is_a_problem_of_its_own(tmp_path: Path) -> None:
    shard(tmp_path, "0.tar", *sample("a", 0), ("b.cls", "1"), ("notes.pdf", "x"))
    listing = LAYOUTS["webdataset"].read(tmp_path)
    assert listing.problems == {"0/b": "the shard has no video of the sample 'b'"}
    assert "1 files in shards belong to no video" in listing.notes


def test_archives_beside_what_was_unpacked_from_them_are_no_shards(tmp_path: Path) -> None:
    shard(tmp_path, "UCF101.tar", ("Run/a.avi", "x"), ("Walk/b.avi", "x"))
    lay_out(tmp_path, empty=["Run/a.avi", "Walk/b.avi"])
    assert recognise(tmp_path) == "class_folders"
    assert "sample 'Run/a' has no label, nor has any other" in refusal("webdataset", tmp_path)


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w:gz"):
        pass
    assert "0.tar cannot be read as a tar archive" in refusal("webdataset", tmp_path)
    (tmp_path / "0.tar").rename(tmp_path / "0.tar.gz")
    assert "compressed ones have to be unpacked" in refusal("webdataset", tmp_path)


def test_videofolder_reads_its_tables(tmp_path: Path) -> None:
    rows = [{"file_name": "Run/a.mp4", "label": 0, "source": "s"}, {"file_name": "Walk/b.mp4", "label": 1}]
    lay_out(tmp_path, {"train/metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    lay_out(tmp_path, {"validation/metadata.csv": "label,file_name\r\n1,c.mp4\r\n"})
    lay_out(tmp_path, empty=["train/Run/a.mp4", "train/Walk/b.mp4", "validation/c.mp4"])
    assert recognise(tmp_path) == "videofolder"
    listing = LAYOUTS["videofolder"].read(tmp_path)
    assert sides(listing) == {"train/Run/a": "train", "train/Walk/b": "train", "validation/c": "test"}
    assert by_id(listing)["train/Run/a"].group == "s"
    assert [clip.label for clip in listing.clips] == [0, 1, 1]


def test_videofolder_with_one_table_and_class_folders(tmp_path: Path) -> None:
    lay_out(tmp_path, {"metadata.csv": "file_name\ntrain/Run/a.mp4\ntrain/Walk/b.mp4\ntest/Run/gone.mp4\n"})
    lay_out(tmp_path, empty=["train/Run/a.mp4", "train/Walk/b.mp4"])
    listing = LAYOUTS["videofolder"].read(tmp_path)
    assert {id_: (clip.class_name, clip.subset(1)) for id_, clip in by_id(listing).items()} == {
        "train/Run/a": ("Run", "train"),
        "train/Walk/b": ("Walk", "train"),
        "test/Run/gone": ("Run", "test"),
    }
    assert listing.problems == {"test/Run/gone": "there is no such video file"}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("file_name,label\n,Run\n", "metadata.csv:2 has no file_name"),
        ("file_name,label\na.mp4,Run\nb.mp4,\n", "metadata.csv:3 has no label"),
        ("file_name,label\na.mp4,Run\na.mp4,Walk\n", "metadata.csv:3: there are two samples 'a'"),
        ("file_name,label\n../a.mp4,Run\n", "metadata.csv:2: '../a.mp4' is not a path below"),
        ("file_name,label\n/a.mp4,Run\n", "metadata.csv:2: '/a.mp4' is absolute"),
        ("file_name,label\nz.mp4,Run\n", "has none of the 1 videos of metadata.csv"),
        ("file_name\na.mp4\n", "metadata.csv:2 has no label, nor has any other"),
    ],
)
def test_a_mistake_in_a_table_of_metadata_is_named_with_its_line(table: str, expected: str, tmp_path: Path) -> None:
    lay_out(tmp_path, {"metadata.csv": table}, ["a.mp4", "b.mp4"])
    assert expected in refusal("videofolder", tmp_path)


def video(name: str, content: bytes | None = b"x") -> dict[str, object]:
    return {"bytes": content, "path": name}


def test_tables_have_sides_groups_and_names_of_classes(tmp_path: Path) -> None:
    rows = [{"video": video("v_Run_g01_c01.mp4"), "label": 0}, {"video": video("b.mp4"), "label": 2}]
    write_table(tmp_path / "data/train-00000-of-00001.parquet", rows, ["Run", "Jump", "Walk"])
    rows = [{"video": video("c.mp4"), "label": 2, "group": "film"}]
    write_table(tmp_path / "data/validation-00000-of-00001.parquet", rows, ["Run", "Jump", "Walk"])
    write_table(tmp_path / "data/test-0.parquet", [{"video": video("d.mp4"), "label": -1}], ["Run", "Jump", "Walk"])
    assert recognise(tmp_path) == "parquet"
    listing = LAYOUTS["parquet"].read(tmp_path)
    assert listing.class_names == ("Run", "Jump", "Walk")
    clips = by_id(listing)
    assert clips["data/train-00000-of-00001/000000-v_Run_g01_c01"].group == "Run/g01"
    assert clips["data/validation-00000-of-00001/000000-c"].group == "film"
    assert clips["data/validation-00000-of-00001/000000-c"].subset(1) == "test", "there is no labelled test list"
    assert len(clips) == 3


def test_plain_bytes_and_names_of_classes_are_read(tmp_path: Path) -> None:
    write_table(tmp_path / "0.parquet", [{"mp4": b"x", "label": "Walk"}, {"mp4": b"y", "label": "Run"}])
    listing = LAYOUTS["parquet"].read(tmp_path)
    assert [(clip.id, clip.class_name) for clip in listing.clips] == [("0/000000", "Walk"), ("0/000001", "Run")]


def test_a_table_may_hold_paths_in_place_of_videos(tmp_path: Path) -> None:
    rows = [{"video": video("v/a.mp4", None), "label": "Run"}, {"video": video("v/gone.mp4", None), "label": "Walk"}]
    cell = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("video", cell), ("label", pyarrow.string())])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), tmp_path / "0.parquet")
    lay_out(tmp_path, empty=["v/a.mp4"])
    listing = LAYOUTS["parquet"].read(tmp_path)
    assert [(clip.path, clip.member) for clip in listing.clips] == [("v/a.mp4", ""), ("v/gone.mp4", "")]
    assert list(listing.problems.values()) == ["there is no such video file"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"video": b"x"}], "0.parquet has no column label"),
        ([{"label": 1}], "0.parquet has no column of videos"),
        ([{"video": b"x", "label": 0}, {"video": b"y", "label": None}], "0.parquet: row 1 has no label"),
        ([{"a": b"x", "b": b"x", "label": 0}], "several columns of bytes, 'a' and 'b'"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_table_and_row(
    rows: list[dict[str, object]], expected: str, tmp_path: Path
) -> None:
    write_table(tmp_path / "0.parquet", rows)
    assert expected in refusal("parquet", tmp_path)


def test_damaged_and_differing_tables_are_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"video": b"x", "label": 0}]
    content = write_table(tmp_path / "0.parquet", rows, ["Run", "Walk"]).read_bytes()
    write_table(tmp_path / "1.parquet", rows, ["Walk", "Run"])
    assert "name different classes" in refusal("parquet", tmp_path)
    (tmp_path / "1.parquet").write_bytes(content[:-20])
    assert f"{tmp_path}/1.parquet cannot be read as a Parquet table" in refusal("parquet", tmp_path)
    with pytest.raises(DatasetNotFoundError, match="holds no table"):
        LAYOUTS["parquet"].read(lay_out(tmp_path / "empty", {"a": ""}))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train-000.tar", "train-003.tar", "test-000.tar"], "2 of 4 numbered files train-* are not there"),
        (["data/train-00001-of-00003.parquet"], "2 of 3 numbered files data/train-* are not there"),
        (["train-00000-of-00002-0123456789abcdef.parquet"], "1 of 2 numbered files train-* are not there"),
        (["train-000.tar", "train-001.tar", "20240101.tar", "20240905.tar", "a.tar"], None),
        (["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"], None),
    ],
)
def test_shards_and_tables_that_are_not_there_are_noted(names: list[str], expected: str | None, tmp_path: Path) -> None:
    notes = missing_notes([tmp_path / name for name in names], tmp_path)
    assert notes == ([] if expected is None else [f"{expected}: their samples are missing"])


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_the_listing_notes_what_is_not_there(layout: str, tmp_path: Path) -> None:
    shard(tmp_path, "train-0.tar", *sample("a"), *sample("b"))
    shard(tmp_path, "train-2.tar", *sample("c", 1))
    rows = [{"video": video("a.mp4"), "label": "Run"}, {"video": video("b.mp4"), "label": "Walk"}]
    write_table(tmp_path / "train-00000-of-00002.parquet", rows)
    assert any("numbered files train-* are not there" in note for note in LAYOUTS[layout].read(tmp_path).notes)


def test_one_name_says_one_side(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="names two sides"):
        side_of(tmp_path / "train-val-0.tar", tmp_path)
