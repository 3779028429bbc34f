"""What the documents name exists: links and their anchors, files, functions, targets of make, pages that code names."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

from tests.conftest import CHECKOUT

FOLDERS = ("hpo", "models", "data", "workers", "api", "tests", "docs", "docker", "benchmarks")
PACKAGES = ("hpo", "models", "data", "workers", "api")
NOT_OURS = ("my_models/", "network.py")
"""Files of a reader's own, which docs/own-model.md and docs/own-function.md write."""

NO_MODULES = ("data.mdb", "models.model")
"""A file of LMDB, and an attribute of a variable called `models`."""

_DOTTED = re.compile(rf"`~?((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(\))?`")
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./*<>-]*")
_FILE = re.compile(r"[\w./-]+\.(?:py|sql|toml)")
_NAMED = re.compile(r"([\w./-]+\.(?:py|sql)):([\w.]+)")


@cache
def _tracked() -> tuple[str, ...]:
    """Return the files of the checkout that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(name for name in listed if (CHECKOUT / name).is_file())


DOCUMENTS = [
    name for name in _tracked() if name.endswith(".md") and not name.startswith("benchmarks/optimizer/report/")
]
PRESENT = [name for name in DOCUMENTS if name != "CHANGELOG.md"]
"""Those that describe the code as it is; the changelog also tells of what was."""


def _quoted(document: str) -> list[str]:
    return _QUOTED.findall(_FENCED.sub("", (CHECKOUT / document).read_text()))


def _anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, made the way GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", _FENCED.sub("", document.read_text()), re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


@cache
def _defined(path: str) -> frozenset[str]:
    """Return what a file defines, methods and fields as `Class.name`; of SQL, the names of its statements."""
    text = (CHECKOUT / path).read_text()
    if path.endswith(".sql"):
        return frozenset(re.findall(r"^-- name: (\w+)", text, re.MULTILINE))
    return frozenset(_names(ast.parse(text).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + node.name
            case ast.ClassDef():
                yield prefix + node.name
                yield from _names(node.body, f"{prefix}{node.name}.")
            case ast.Assign():
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name
            case _:
                pass


def _found(path: str) -> list[str]:
    """Return the files that a document means by a path: whole, or from some folder of ours on."""
    return [name for name in _tracked() if name == path or name.endswith(f"/{path}")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_their_anchors_lead_somewhere(document: str) -> None:
    here = CHECKOUT / document
    for target, anchor in _LINK.findall(_FENCED.sub("", here.read_text())):
        there = here.parent / target if target else here
        assert there.exists(), f"{document} links to {target}, which is not there"
        assert not anchor or anchor in _anchors(there), f"{document} links to #{anchor}, a heading that {there} lacks"


@pytest.mark.parametrize("document", PRESENT)
def test_the_paths_that_a_document_names_exist(document: str) -> None:
    for quoted in _quoted(document):
        path = quoted.partition(":")[0]
        if _PATH.fullmatch(path):
            pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
            assert list(CHECKOUT.glob(pattern)), f"{document} names {path}, which is not there"
        elif _FILE.fullmatch(path) and not path.startswith(NOT_OURS):
            assert _found(path), f"{document} names {path}, which is no file of ours"


@pytest.mark.parametrize("document", PRESENT)
def test_the_functions_that_a_document_names_are_defined_there(document: str) -> None:
    for quoted in _quoted(document):
        if found := _NAMED.fullmatch(quoted):
            path, name = found.groups()
            assert any(name in _defined(file) for file in _found(path)), f"{document} names {quoted}: there is none"


def test_one_trial_is_followed_by_the_names_of_functions() -> None:
    """The page is checked above; here, that it still names enough for that to mean something."""
    named = {quoted for quoted in _quoted("docs/one-trial.md") if _NAMED.fullmatch(quoted)}
    assert len(named) >= 40
    assert {quoted.partition("/")[0] for quoted in named} == set(PACKAGES)


def test_the_targets_of_make_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    texts = {document: (CHECKOUT / document).read_text() for document in PRESENT}
    named = {
        (document, target)
        for document, text in texts.items()
        for target in re.findall(r"(?:`|^ {4}|^)make (?:[A-Z]+=\S+ )*([a-z-]+)", text, re.MULTILINE)
    }
    assert {target for _, target in named} >= {"install", "demo", "test", "lint"}
    assert not {(document, target) for document, target in named if target not in targets}


def test_the_pages_that_code_names_exist() -> None:
    for name in _tracked():
        if name.endswith(".py") and name.startswith(PACKAGES):
            for page in re.findall(r"\bdocs/[\w/.-]+\.md\b", (CHECKOUT / name).read_text()):
                assert (CHECKOUT / page).exists(), f"{name} names {page}"


def _is_defined(dotted: str) -> bool:
    """Return whether a dotted name, such as `hpo.client.http.Client`, is a module or something that one names."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        path = Path(*parts[:end])
        source = path / "__init__.py" if (CHECKOUT / path).is_dir() else path.with_suffix(".py")
        if (CHECKOUT / source).exists():
            return not parts[end:] or re.search(rf"\b{parts[end]}\b", (CHECKOUT / source).read_text()) is not None
    return False


@pytest.mark.parametrize("package", PACKAGES)
def test_the_modules_that_docstrings_name_exist(package: str) -> None:
    for name in _tracked():
        if name.endswith(".py") and name.startswith(f"{package}/"):
            for dotted in _DOTTED.findall((CHECKOUT / name).read_text()):
                assert dotted in NO_MODULES or _is_defined(dotted), f"{name} names {dotted}, which is not there"


def test_every_folder_of_tests_is_described() -> None:
    page = (CHECKOUT / "CONTRIBUTING.md").read_text()
    described = set(re.findall(r"^\| `tests/(\w+)/` \|", page, re.MULTILINE))
    assert described == {name.split("/")[1] for name in _tracked() if name.startswith("tests/") and name.count("/") > 1}


def test_every_room_stands_in_the_table_of_the_architecture() -> None:
    rooms = {str(Path(name).parent) for name in _tracked() if name.startswith(tuple(f"{p}/" for p in PACKAGES))}
    packages = {room for room in rooms if (CHECKOUT / room / "__init__.py").exists()} - set(PACKAGES)
    page = (CHECKOUT / "docs/architecture.md").read_text()
    described = set(re.findall(r"^\| `([\w/]+)/` \|", page, re.MULTILINE))
    assert described == packages


def test_a_room_imports_what_the_architecture_says_it_stands_on() -> None:
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True)
    page = (CHECKOUT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)/` \|[^|]+\|([^|]+)\|$", page, re.MULTILINE)
    stated = [(room, path.removesuffix(".py").strip("/")) for room, cell in rows for path in _QUOTED.findall(cell)]
    assert len(stated) > len(rows)
    for room, path in stated:
        importer, imported = room.replace("/", "."), path.replace("/", ".")
        found = graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)
        assert found, f"{room} imports nothing of {path}"


def test_the_layers_of_the_architecture_are_those_that_the_contracts_hold() -> None:
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = {c["containers"][0]: " > ".join(c["layers"]) for c in contracts if c["type"] == "layers"}
    page = (CHECKOUT / "docs/architecture.md").read_text()
    described = {name: " ".join(line.split()) for name, line in re.findall(r"^(\w+): +(.+ > .+)$", page, re.MULTILINE)}
    assert described == held


def test_decisions_are_numbered_without_gaps_listed_and_of_one_form() -> None:
    folder = CHECKOUT / "docs" / "decisions"
    pages = sorted(path for path in folder.iterdir() if path.name != "README.md")
    index = re.findall(r"^\| (\d{4}) \| \[(.+)\]\((.+)\) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    titles = [re.sub(r"^# \d+\. ", "", path.read_text().splitlines()[0]) for path in pages]
    assert index == [(path.name[:4], title, path.name) for path, title in zip(pages, titles, strict=True)]
    for number, path in enumerate(pages, start=1):
        assert path.name.startswith(f"{number:04d}-")
        assert path.read_text().startswith(f"# {number}. ")
        assert re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE) == ["Context", "Decision", "Consequences"]
