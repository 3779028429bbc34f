"""The index: what its hash depends on, and that a file gives it back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import Index
from data.errors import DatasetFormatError, DatasetNotFoundError
from data.index.file import read_index, write_index
from data.index.records import ClipRecord, FlowFiles, Measurement, make_index


def record(name: str = "a", **changes: Any) -> ClipRecord:
    measured = Measurement(status="ok", n_frames=9, width=8, height=6, fps=25.0, sha1=f"sha-{name}")
    clip = ClipRecord(
        id=f"Run/{name}",
        path=f"videos/Run/{name}.avi",
        label=0,
        class_name="Run",
        group="g01",
        official=((1, "train"), (2, "test")),
        measured=measured,
    )
    return replace(clip, **changes)


def index(*clips: ClipRecord, **changes: Any) -> Index:
    return make_index(**({"name": "ucf101", "class_names": ["Run"], "clips": clips} | changes))


def test_order_name_and_notes_do_not_change_the_hash() -> None:
    one = index(record("a"), record("b"), notes=["two videos"])
    other = index(record("b"), record("a"), name="other")
    assert one.hash == other.hash


def test_the_text_of_a_decoder_error_does_not_change_the_hash() -> None:
    broken = Measurement(status="corrupt", note="one wording")
    one = index(record(measured=broken))
    assert one.hash == index(record(measured=replace(broken, note="another"))).hash


@pytest.mark.parametrize(
    "changed",
    [
        {"label": 1},
        {"group": "g02"},
        {"class_name": "Walk"},
        {"official": ((1, "test"), (2, "train"))},
        {"official": ((1, "validation"), (2, "test"))},
        {"path": "videos/Run/other.avi"},
        {"kind": "frames"},
        {"frame_name": "img_%05d.jpg"},
        {"start": 1},
        {"end": 9},
        {"other_labels": (1,)},
        {"flow": FlowFiles(x="x%d", y="y%d")},
        {"flow": FlowFiles(x="x%d", y="y%d", bound=10.0)},
        {"measured": Measurement(status="ok", n_frames=9, width=8, height=6, fps=25.0, sha1="x")},
        {"measured": Measurement(status="corrupt", sha1="sha-a")},
    ],
)
def test_every_field_that_training_depends_on_changes_the_hash(changed: dict[str, Any]) -> None:
    assert index(record()).hash != index(record(**changed)).hash


def test_another_decoders_rounding_does_not_change_the_hash() -> None:
    measured = record().measured
    assert index(record()).hash == index(record(measured=replace(measured, frames_hash="other"))).hash


def test_class_names_and_their_order_change_the_hash() -> None:
    names = index(record(), class_names=["Run", "Walk"])
    assert names.hash != index(record(), class_names=["Walk", "Run"]).hash


def test_saving_and_loading_gives_the_same_index(tmp_path: Path) -> None:
    segment = record("c", kind="frames", frame_name="%05d.jpg", start=3, end=9, other_labels=(2, 1), label=1)
    with_flow = record("d", flow=FlowFiles(x="u/%d", y="v/%d", first=0, bound=15.0), official=())
    plain = [record(f"e{number}") for number in range(20)]
    broken = record("b", measured=Measurement(status="empty"))
    saved = index(record("a"), broken, segment, with_flow, *plain, notes=["note"])
    write_index(saved, tmp_path / "index.json")
    loaded = read_index(tmp_path / "index.json")
    assert loaded == saved
    assert loaded.hash == saved.hash
    assert [file.name for file in tmp_path.iterdir()] == ["index.json"]


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    write_index(index(record()), path)
    text = path.read_text()
    for old, new in (("Run/a", "Run/b"), (index(record()).hash, index(record("b")).hash)):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(DatasetFormatError, match="was changed"):
            read_index(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1, "class_names": [], "clips": [{}]}'])
def test_a_file_that_is_not_an_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DatasetFormatError, match=r"index\.json .*scan (again|the folder of the videos)"):
        read_index(tmp_path / "index.json")


def test_a_missing_index_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="scan the data set"):
        read_index(tmp_path / "index.json")


def test_problems_name_every_clip_that_is_left_out() -> None:
    broken = Measurement(status="empty", note="the file has no bytes")
    found = index(record("a"), record("b", measured=broken))
    assert [clip.id for clip in found.usable] == ["Run/a"]
    (problem,) = found.problems()
    assert (problem.id, problem.path, problem.status, problem.note) == (
        "Run/b",
        "videos/Run/b.avi",
        "empty",
        "the file has no bytes",
    )
    assert found.status_counts() == {"ok": 1, "empty": 1}


def test_two_clips_of_one_id_are_refused() -> None:
    with pytest.raises(DatasetFormatError, match="Run/a"):
        index(record("a"), record("a"))
