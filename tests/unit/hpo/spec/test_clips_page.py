"""docs/clips.md names every setting of clips and augmentation, with its default."""

from __future__ import annotations

import re

import pytest

from data.specs import AugmentSpec, ClipSettings
from tests.conftest import CHECKOUT

PAGE = (CHECKOUT / "docs" / "clips.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `((?:clip|augment)\.\w+)` \| `?([^|`]+?)`? \|", PAGE, re.MULTILINE))
SETTINGS = {
    f"{group}.{name}": field.default
    for group, config in (("clip", ClipSettings), ("augment", AugmentSpec))
    for name, field in config.model_fields.items()
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_on_the_page_with_its_default(name: str) -> None:
    default = SETTINGS[name]
    shown = default if isinstance(default, str) else f"{default:.4g}"
    assert ROWS[name] == shown


def test_the_page_names_nothing_else() -> None:
    assert set(ROWS) == set(SETTINGS)
