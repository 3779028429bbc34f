"""A value is changed in the text of a spec, and what else a person wrote stays, letter by letter."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.errors import SpecError
from hpo.spec.editing import NOTHING, Path, read_document, value_at, with_value

WRITTEN = """\
# what we want
name: mine   # for now
objectives:
  - {metric: val_top1, direction: maximize}
task:
  dataset: {root: /data/a}  # a folder
  base:
    model: r2plus1d_18
    # the clip
    clip: {frames: 16}

budget: {trials: 40}
"""
BASE = WRITTEN[WRITTEN.index("\n    model") : WRITTEN.index("\n\nbudget")]


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("name",), "yours", "name: mine ", "name: yours "),
        (("budget", "trials"), 8, "trials: 40", "trials: 8"),
        (("budget", "gpu_hours"), 1e-5, "{trials: 40}", "{trials: 40, gpu_hours: 1.0e-05}"),
        (("task", "base", "model"), NOTHING, "    model: r2plus1d_18\n", ""),
        (("task", "base", "lr"), 0.1, "clip: {frames: 16}\n", "clip: {frames: 16}\n    lr: 0.1\n"),
        (("objectives", 0, "metric"), "a: b", "metric: val_top1", "metric: 'a: b'"),
        (("budget", "trials"), NOTHING, "budget: {trials: 40}\n", ""),
        (("finalists", "top"), 3, "budget: {trials: 40}\n", "budget: {trials: 40}\nfinalists: {top: 3}\n"),
        (("task", "base"), {"model": "x3d_s"}, BASE, " {model: x3d_s}"),
    ],
)
def test_only_the_value_changes(path: Path, value: object, old: str, new: str) -> None:
    assert WRITTEN.count(old) == 1
    assert with_value(WRITTEN, path, value) == WRITTEN.replace(old, new)


def test_what_is_there_already_changes_nothing() -> None:
    assert with_value(WRITTEN, ("budget", "trials"), 40) is WRITTEN
    assert with_value(WRITTEN, ("budget", "gpu_hours"), NOTHING) is WRITTEN


def test_an_empty_key_is_filled_and_an_item_of_a_list_loses_its_first_key() -> None:
    assert with_value("name: a\nbudget:\n", ("budget", "trials"), 3) == "name: a\nbudget: {trials: 3}\n"
    text = "objectives:\n- metric: a\n  direction: minimize\n"
    assert read_document(with_value(text, ("objectives", 0, "metric"), NOTHING)) == {
        "objectives": [{"direction": "minimize"}]
    }


def test_a_key_that_was_merged_goes_too() -> None:
    text = "<<: {budget: {trials: 3, gpu_hours: 2}}\nname: a\n"
    found = with_value(text, ("budget", "trials"), NOTHING)
    assert read_document(found) == {"budget": {"gpu_hours": 2}, "name": "a"}


def test_json_stays_json() -> None:
    text = '{"name": "a",\n "budget": {"trials": 3}}\n'
    found = with_value(with_value(text, ("budget", "gpu_hours"), 2.5), ("note",), 'with "quotes"')
    assert json.loads(found) == {"name": "a", "budget": {"trials": 3, "gpu_hours": 2.5}, "note": 'with "quotes"'}
    assert found.startswith('{"name": "a",\n "budget"')


def test_a_list_or_a_value_where_a_mapping_belongs_is_said() -> None:
    with pytest.raises(SpecError, match="budget: this is no mapping"):
        with_value("budget: 3\n", ("budget", "trials"), 4)
    with pytest.raises(SpecError, match="mapping of fields"):
        with_value("- 1\n", ("name",), "a")


_KEYS = st.sampled_from(["a", "b", "c.d", "e f", "0", "#"])
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-99, 99),
    st.sampled_from([0.5, 1e-7, 1e22]),
    st.text("ab:#'\"\n ,{}[]é", max_size=5),
)
_DOCUMENTS = st.dictionaries(
    _KEYS,
    st.recursive(
        _SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=6
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(
    document=_DOCUMENTS,
    path=st.lists(_KEYS, min_size=1, max_size=3),
    value=_SCALARS | st.just(NOTHING),
    flow=st.sampled_from([None, True, False]),
)
def test_the_document_is_what_it_was_with_that_value(
    document: dict[str, Any], path: list[str], value: object, flow: bool | None
) -> None:
    text = yaml.safe_dump(document, default_flow_style=flow, allow_unicode=True)
    if text.startswith("{"):
        text = f"# all in one line\n{text}"
    before = read_document(text)
    try:
        found = read_document(with_value(text, tuple(path), value))
    except SpecError:
        assert any(not isinstance(value_at(before, tuple(path[:end])), dict) for end in range(1, len(path)))
        return
    assert value_at(found, tuple(path)) == value
    left, kept = copy.deepcopy(found), copy.deepcopy(before)
    for each in (left, kept):
        each.pop(path[0], None)
    assert left == kept, "no other field of the spec changes"
