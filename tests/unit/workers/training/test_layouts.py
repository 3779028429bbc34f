"""What the study's words for a data set become, and that they are those of `data`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from data.importers.registry import AUTO, LAYOUTS
from data.specs import DatasetSpec, FlowKind, StoreKind, Validation
from hpo.spec import DatasetConfig
from hpo.spec.tasks.video_dataset import LAYOUTS as NAMED


def test_the_spec_knows_the_layouts_and_splits_that_can_be_read() -> None:
    assert dict(NAMED) == {AUTO: 99} | {name: layout.most_splits for name, layout in LAYOUTS.items()}


def test_the_spec_offers_the_validations_that_there_are() -> None:
    assert get_args(DatasetConfig.model_fields["validation"].annotation) == get_args(Validation)


@pytest.mark.parametrize(("field", "kinds"), [("store", StoreKind), ("flow", FlowKind)])
def test_the_spec_offers_the_preparations_that_there_are(field: str, kinds: Any) -> None:
    assert get_args(DatasetConfig.model_fields[field].annotation) == get_args(kinds)


def test_defaults_agree() -> None:
    config, spec = DatasetConfig(root="x"), DatasetSpec(name="ucf101", root="x")
    shared = set(DatasetConfig.model_fields)
    assert shared == set(DatasetSpec.__dataclass_fields__)
    assert {name: getattr(config, name) for name in shared} == {name: getattr(spec, name) for name in shared}


def test_the_documents_name_every_layout_and_field() -> None:
    text = (Path(__file__).resolve().parents[4] / "docs" / "data-sets.md").read_text()
    layouts, fields = text.split("## Fields of")
    first = set(re.findall(r"^\| `(\w+)`(?: \(default\))? \|", layouts, re.MULTILINE)) - {"name", "validation"}
    assert first == {*LAYOUTS, *get_args(Validation)}
    rows = re.findall(r"^\| (`[`\w, ]+) \| ([^|]+) \|", fields.split("## The index")[0], re.MULTILINE)
    config = DatasetConfig(root="x")
    for names, values in rows:
        for name, value in zip(re.findall(r"\w+", names), values.split(","), strict=True):
            default = getattr(config, name)
            shown = value.strip().strip("`")
            assert shown == ("none" if default is None else str(default)), name
    assert len(rows) == 7
