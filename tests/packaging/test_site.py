"""The documents as pages of a site: their links, and that each is found in its navigation."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.conftest import CHECKOUT

KNOWN = frozenset({"index.md", "contributing.md", "answer.md", "decisions/0030-why.md", "pictures/home.png"})


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """The script that puts the pages into a folder."""
    spec = importlib.util.spec_from_file_location("site_prepare", CHECKOUT / ".ci" / "site" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "page", "link", "mended"),
    [
        ("README.md", "index.md", "[a](docs/answer.md#few)", "[a](answer.md#few)"),
        ("README.md", "index.md", "![a](docs/pictures/home.png)", "![a](pictures/home.png)"),
        ("docs/answer.md", "answer.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/answer.md", "answer.md", "[a](decisions/0030-why.md)", "[a](decisions/0030-why.md)"),
        (
            "docs/decisions/0030-why.md",
            "decisions/0030-why.md",
            "[a](../../CONTRIBUTING.md#x)",
            "[a](../contributing.md#x)",
        ),
        ("docs/answer.md", "answer.md", "[`answer`](../hpo/answer/answer.py)", "`answer`"),
        (
            "docs/answer.md",
            "answer.md",
            "[a](https://example.org/b.md), [b](#below)",
            "[a](https://example.org/b.md), [b](#below)",
        ),
    ],
)
def test_links_lead_to_the_pages_of_the_site(site: Any, source: str, page: str, link: str, mended: str) -> None:
    assert site.for_the_site(link, source=source, page=page, known=KNOWN) == mended


def test_a_link_to_a_file_that_is_not_there_is_an_error(site: Any) -> None:
    with pytest.raises(site.DeadLinkError, match=r"docs/answer.md links to gone.md, and there is no docs/gone.md"):
        site.for_the_site("[a](gone.md)", source="docs/answer.md", page="answer.md", known=KNOWN)


def test_a_list_right_below_a_line_is_a_list_on_the_site_too(site: Any) -> None:
    written = site.for_the_site("Two:\n- a\n- b\n", source="README.md", page="index.md", known=KNOWN)
    assert written == "Two:\n\n- a\n- b\n"


def test_every_document_has_a_place_in_the_navigation(site: Any) -> None:
    navigation = yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())["nav"]
    listed = set(_leaves(navigation))
    documents = {str(path.relative_to(CHECKOUT / "docs")) for path in (CHECKOUT / "docs").glob("*.md")}
    made = {f"reference/{name.replace('_', '-')}.md" for name in site.GENERATED}
    assert listed == documents | set(site.BESIDE_DOCS.values()) | made | {"decisions/README.md"}


def _leaves(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    values = part.values() if isinstance(part, dict) else part
    return [leaf for value in values for leaf in _leaves(value)]
