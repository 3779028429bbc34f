"""Something-Something: templates to labels, both versions, clips without labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.registry import recognise
from data.importers.something import read_something

from .trees import by_id, frames, lay_out, sides

V2 = "something-something-v2-"
LABELS = json.dumps({"Holding something": "1", "Putting something onto something": "0"})
TRAIN = json.dumps(
    [
        {"id": "7", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
        {"id": "8", "template": "Putting [something] onto [something]"},
    ]
)
VALIDATION = json.dumps([{"id": "9", "template": "Holding [something]"}])
TEST = json.dumps([{"id": "10"}])


@pytest.mark.parametrize("prefix", [V2, "", f"labels/{V2}"])
def test_templates_without_placeholders_give_the_labels(tmp_path: Path, prefix: str) -> None:
    lists = {"labels": LABELS, "train": TRAIN, "validation": VALIDATION, "test": TEST}
    empty = [f"20bn-something-something-v2/{id_}.webm" for id_ in (7, 8, 9, 10)]
    listing = read_something(lay_out(tmp_path, {f"{prefix}{name}.json": text for name, text in lists.items()}, empty))
    assert recognise(tmp_path) == "something"
    assert listing.class_names == ("Putting something onto something", "Holding something")
    assert sides(listing) == {
        "Holding something/7": "train",
        "Putting something onto something/8": "train",
        "Holding something/9": "test",
    }
    clip = by_id(listing)["Holding something/7"]
    assert (clip.label, clip.path, clip.group) == (1, empty[0], clip.id)
    assert "1 listed clips have no label and are left out" in listing.notes


def test_version_1_has_csv_lists_and_frames(tmp_path: Path) -> None:
    v1 = "something-something-v1-"
    lists = {
        f"{v1}labels.csv": "Holding something\nPutting something onto something\n",
        f"{v1}train.csv": "7;Holding something\n",
        f"{v1}validation.csv": "8;Putting something onto something\n",
        f"{v1}test.csv": "9\n",
    }
    lay_out(tmp_path, lists, frames("20bn-something-something-v1/7"))
    listing = read_something(tmp_path)
    assert recognise(tmp_path) == "something"
    (clip,) = listing.clips
    assert (clip.kind, clip.frame_name, clip.label, clip.class_name) == ("frames", "%05d.jpg", 0, "Holding something")
    assert "1 of 2 listed clips are missing, e.g. 8" in listing.notes


def test_the_official_label_map_fits(tmp_path: Path, shared_data: Path) -> None:
    names = (shared_data / "splits" / "sth" / "mmaction2_sthv2_label_map.txt").read_text()
    train = json.dumps([{"id": "7", "template": "Bending [something] so that it deforms"}])
    lay_out(tmp_path, {"train.json": train, "sthv2_label_map.txt": names}, ["7.webm"])
    listing = read_something(tmp_path)
    assert (len(listing.class_names), listing.clips[0].label) == (174, 2)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ('[{"id": "7", "template": "Eating [something]"}]', "class 'Eating something' of 7 is not in the class list"),
        ('[{"template": "Holding [something]"}]', r"train\.json\[0\] has no 'id'"),
        ('[{"id": "a/b", "template": "Holding [something]"}]', "is not an id"),
        ('[{"id": "..", "template": "Holding [something]"}]', "not a path below"),
        ('{"id": "7"}', "not a list of entries"),
    ],
)
def test_an_entry_that_is_not_valid_is_named(tmp_path: Path, train: str, message: str) -> None:
    lay_out(tmp_path, {"labels.json": LABELS, "train.json": train}, ["7.webm"])
    with pytest.raises(DatasetFormatError, match=message):
        read_something(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no something-something-v2-train\.json"):
        read_something(tmp_path)
    lay_out(tmp_path, {"train.json": TRAIN})
    with pytest.raises(DatasetNotFoundError, match=r"no something-something-v2-labels\.json"):
        read_something(tmp_path)
