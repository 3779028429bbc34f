"""The table of layouts in the schema is that of the importers, and the page tells both."""

from __future__ import annotations

import re
from typing import get_args

from data.importers.registry import AUTO, LAYOUTS
from data.specs import LAYOUTS as NAMED
from data.specs import DatasetSpec, Validation
from tests.conftest import CHECKOUT


def test_the_schema_names_the_layouts_that_can_be_read() -> None:
    assert list(NAMED) == [AUTO, *LAYOUTS]


def test_the_documents_name_every_layout_and_field() -> None:
    text = (CHECKOUT / "docs" / "data-sets.md").read_text()
    layouts, fields = text.split("## Fields of")
    first = set(re.findall(r"^\| `(\w+)`(?: \(default\))? \|", layouts, re.MULTILINE)) - {"name", "validation"}
    assert first == {*LAYOUTS, *get_args(Validation)}
    rows = re.findall(r"^\| (`[`\w, ]+) \| ([^|]+) \|", fields.split("## The index")[0], re.MULTILINE)
    spec = DatasetSpec(root="x")
    for names, values in rows:
        for name, value in zip(re.findall(r"\w+", names), values.split(","), strict=True):
            default = getattr(spec, name)
            shown = value.strip().strip("`")
            assert shown == ("none" if default is None else str(default)), name
    assert len(rows) == 7
