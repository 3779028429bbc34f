"""Whatever a list holds, an importer gives a listing or says in a sentence what is wrong."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DatasetError
from data.importers.registry import LAYOUTS, recognise

from .trees import lay_out

WORDS = st.sampled_from(
    ["Run/a.avi", "a b.mp4", "a", "0", "1", "2", "-1", "1.5", "99999999999999999999", "²", "..", "/", "../x", ";", ","]
)
LINES = st.lists(st.lists(WORDS | st.text(max_size=4), max_size=5).map(" ".join) | st.text(max_size=12), max_size=5)
TEXT = LINES.map("\n".join)
LISTS = {
    "ucf101": ["classInd.txt", "trainlist01.txt", "testlist01.txt"],
    "hmdb51": ["splits/Run_test_split1.txt", "splits/Run_test_split2.txt"],
    "kinetics": ["train.csv", "val.csv"],
    "frame_lists": ["train.txt", "val.txt", "label_map.txt"],
    "path_lists": ["train.txt", "val.txt", "label_map.txt"],
    "class_folders": ["classes.txt"],
    "something": ["something-something-v1-labels.csv", "something-something-v1-train.csv"],
}
MEDIA = ("videos/Run/a.avi", "Run/a.avi", "a", "images/a/0001.jpg")

KEYS = st.sampled_from(
    ["label", "labels", "training", "validation", "database", "classes", "annotations", "segment", "subset", "id"]
) | st.sampled_from(["template", "isthere", "cls", "numf", "duration", "1", "2", "a", "../a"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats(allow_nan=True) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
JSON_LISTS = {
    "annot_json": ["annotations/annot01.json"],
    "activitynet": ["activity_net.json"],
    "something": ["something-something-v2-train.json", "something-something-v2-labels.json"],
}


def read_or_told(name: str, files: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = lay_out(Path(folder), {**dict.fromkeys(MEDIA, ""), **files})
        for read in (LAYOUTS[name].read, recognise):
            with contextlib.suppress(DatasetError):
                assert read(root)


@pytest.mark.parametrize("name", LISTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_text_is_read_or_reported(name: str, data: st.DataObject) -> None:
    head = "label,youtube_id,time_start,time_end\n" if name == "kinetics" else ""
    read_or_told(name, {path: head + data.draw(TEXT) for path in LISTS[name]})


@pytest.mark.parametrize("name", JSON_LISTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_json_is_read_or_reported(name: str, data: st.DataObject) -> None:
    drawn = VALUES
    if name == "annot_json":
        drawn = st.fixed_dictionaries({key: VALUES for key in ("labels", "training", "validation")}) | VALUES
    if name == "activitynet":
        drawn = st.fixed_dictionaries({"database": st.dictionaries(KEYS, VALUES, max_size=3)}) | VALUES
    read_or_told(name, {path: json.dumps(data.draw(drawn)) for path in JSON_LISTS[name]})
