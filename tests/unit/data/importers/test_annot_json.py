"""Images, flow and annot0N.json: both folder shapes, labels from 1, lists that disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.annot_json import read_annot_json
from data.importers.registry import recognise

from .trees import by_id, frames, lay_out

A, B = "v_Run_g01_c01", "v_Walk_g02_c01"


def annot(**changes: Any) -> dict[str, Any]:
    return {
        "labels": {"1": "Run", "2": "Walk"},
        "training": {A: {"set": "training", "label": 1, "nframes": 999}},
        "validation": {B: {"set": "validation", "label": 2, "nframes": 3}},
    } | changes


SWAPPED = {"training": annot()["validation"], "validation": annot()["training"]}


def tree(root: Path, *, per_class: bool = False, flow: bool = True, **lists: dict[str, Any]) -> Path:
    a, b = (f"Run/{A}", f"Walk/{B}") if per_class else (A, B)
    parents = ["images", *(["flows/u", "flows/v"] if flow else [])]
    empty = [n for parent in parents for c in (a, b) for n in frames(f"{parent}/{c}", name="frame%06d.jpg")]
    texts = {
        f"annotations/{name}.json": json.dumps(content) for name, content in (lists or {"annot01": annot()}).items()
    }
    return lay_out(root, texts, empty)


@pytest.mark.parametrize("per_class", [False, True])
def test_flat_and_per_class_folders_read_the_same(tmp_path: Path, per_class: bool) -> None:
    listing = read_annot_json(tree(tmp_path, per_class=per_class, annot01=annot(), annot02=annot(**SWAPPED)))
    assert recognise(tmp_path) == "annot_json"
    assert listing.class_names == ("Run", "Walk")
    clip = by_id(listing)[f"Run/{A}"]
    assert (clip.label, clip.kind, clip.frame_name, clip.group) == (0, "frames", "frame%06d.jpg", "Run/g01")
    assert clip.official == ((1, "train"), (2, "test"))
    assert (tmp_path / clip.path / (clip.frame_name % 3)).is_file()
    assert clip.flow is not None
    assert (tmp_path / (clip.flow.x % 3)).is_file()
    assert (tmp_path / (clip.flow.y % 3)).is_file()
    assert "u" in clip.flow.x.split("/")


def test_clips_without_flow_files_have_no_flow(tmp_path: Path) -> None:
    assert all(clip.flow is None for clip in read_annot_json(tree(tmp_path, flow=False)).clips)


def test_reading_twice_gives_the_same_labels(tmp_path: Path) -> None:
    tree(tmp_path)
    assert read_annot_json(tmp_path) == read_annot_json(tmp_path)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"labels": {"1": "Walk", "2": "Run"}}, "names other classes"),
        ({"labels": {"1": "Run", "3": "Walk"}}, "without a gap"),
        ({"labels": ["Run", "Walk"]}, "not a mapping of numbers"),
        ({"training": {A: {"label": 0}}}, r"training\.v_Run_g01_c01: label 0 is not in 1\.\.2"),
        ({"training": {A: {"label": 3}}}, r"label 3 is not in 1\.\.2"),
        ({"training": {A: {"label": 2}}}, "label 2 is not that of another list, 1"),
        ({"training": {"../x": {"label": 1}}}, "not a path below"),
        ({"validation": {A: {"label": 1}}}, "on both lists of split 2"),
        ({"training": []}, "not a mapping of clips"),
    ],
)
def test_a_list_that_is_not_valid_is_named(tmp_path: Path, second: dict[str, Any], message: str) -> None:
    tree(tmp_path, annot01=annot(), annot02=annot(**second))
    with pytest.raises(DatasetFormatError, match=rf"annot02\.json.*{message}"):
        read_annot_json(tmp_path)


def test_invalid_json_and_missing_fields_are_named(tmp_path: Path) -> None:
    path = tree(tmp_path) / "annotations" / "annot01.json"
    path.write_text("{")
    with pytest.raises(DatasetFormatError, match=r"annot01\.json is not JSON"):
        read_annot_json(tmp_path)
    path.write_text("{}")
    with pytest.raises(DatasetFormatError, match=r"annot01\.json lacks 'labels'"):
        read_annot_json(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no annotations/annot01\.json"):
        read_annot_json(tmp_path)
    lay_out(tmp_path, {"annotations/annot01.json": json.dumps(annot())})
    with pytest.raises(DatasetNotFoundError, match="no images/"):
        read_annot_json(tmp_path)
