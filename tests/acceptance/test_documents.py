"""What the documents say holds: specs are valid, defaults are those of the code, no command or block is passed over.

What the commands do is tried by `test_pages.py`.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import yaml
from typer.main import get_command

from hpo.cli.app import whole
from hpo.cli.demo import demo_spec
from hpo.cli.root_options import in_front
from hpo.cli.spec_check import check_models, search_fragment, with_models
from hpo.errors import SpecError
from hpo.spec import StudySpec, TrainingConfig, VideoTask, parse_spec
from hpo.spec.study import EarlyStopping
from tests.conftest import CHECKOUT
from tests.documents import DOCUMENTS, Block, blocks, indented
from workers.cli import app as worker_app

RUN: Final = ("bash", "python", "yaml")
"""Languages of what is run, or checked by the parser of its kind."""
READ: Final = ("json", "toml", "ini", "sql", "diff", "text", "console")
"""Languages of what is only read: output, files of other programs, excerpts."""
PAGES: Final = tuple(name for name in DOCUMENTS if not name.startswith("docs/decisions/") and name != "CHANGELOG.md")
_COMMAND: Final = re.compile(r"(?: *(?:exec|until|while|do|then|\w+=\S+) )* *(?=hpo(?:-worker)?(?: |$))")
_OPERATORS: Final = re.compile(r"&&|\||;|\$\(|\)| >>? ")


def _specs() -> Iterator[tuple[Block, dict[str, Any]]]:
    """Yield the whole study specs of all documents, as they are written."""
    for document in DOCUMENTS:
        for block in blocks(document, "yaml"):
            if "name" in (raw := yaml.safe_load(block.text)):
                yield block, raw


def test_the_specs_in_the_documents_are_valid() -> None:
    for block, raw in _specs():
        assert with_models(parse_spec(raw, search_fragment)).name == raw["name"], block.place


PARTS: Final = {
    "name": "part",
    "objectives": [{"metric": "val_top1"}],
    "task": {"dataset": {"root": "/data"}},
    "space": {"lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True}},
    "budget": {"trials": 60},
}


OWN: Final = {"objectives": [{"metric": "score"}], "task": {"kind": "custom", "metrics": {"score": "maximize"}}}
"""A study whose parameters may have any names."""


def test_the_parts_of_specs_in_the_documents_are_valid() -> None:
    """A part is completed by what it does not say. What no section of a spec is called is a data set, or parameters."""
    parts = 0
    for block in (block for document in PAGES for block in blocks(document, "yaml") if block.reason is None):
        raw = yaml.safe_load(block.text)
        if "name" in raw:
            continue
        if not set(raw) <= set(StudySpec.model_fields):
            raw = {"task": raw} if "dataset" in raw else {**OWN, "space": raw}
        if guesses := raw.get("optimizer", {}).get("enqueue"):
            raw["space"] = {"include": list({guess["model"] for guess in guesses})}
        parse_spec({**PARTS, **raw}, search_fragment)
        parts += 1
    assert parts > 5


def test_the_spec_of_the_demo_is_valid(tmp_path: Path) -> None:
    assert not check_models(parse_spec(demo_spec(tmp_path)))


def test_the_settings_in_the_readme_have_the_defaults_it_gives() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \| ([^|]+) \|", readme, re.MULTILINE)
    defaults, checked = {**TrainingConfig.all_defaults(), **VideoTask.recommended()}, 0
    for names, values in rows:
        keys = re.findall(r"`([a-z_.]+)`", names)
        if not set(keys) <= set(defaults):
            continue
        for key, value in zip(keys, values.replace("`", "").split(","), strict=True):
            assert yaml.safe_load(value) == defaults[key] or float(value) == defaults[key], key
            checked += 1
    assert checked >= 15


def test_the_message_in_the_readme_is_the_one_that_a_person_gets() -> None:
    """The README sets `low` of the learning rate of its first study to 0."""
    raw = yaml.safe_load(blocks("README.md", "yaml")[0].text)
    raw["space"]["lr"]["low"] = 0
    with pytest.raises(SpecError) as caught:
        parse_spec(raw, search_fragment)
    assert f"error: {caught.value}\n" in [block.text for block in blocks("README.md", "text")]


def test_the_page_of_stopping_rules_has_a_row_for_each() -> None:
    known = {rule.model_fields["name"].annotation for rule in get_args(get_args(EarlyStopping)[0])}
    page = (CHECKOUT / "docs" / "early-stopping.md").read_text()
    table = page.partition("## Which rule")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z]+)`", row)} - {"name"} == {
        name for literal in known for name in get_args(literal)
    }


@pytest.mark.parametrize("document", PAGES)
def test_every_block_of_code_is_run_or_says_why_not(document: str) -> None:
    assert not indented(document), "fence it and name its language"
    for block in blocks(document):
        assert block.language in (*RUN, *READ), f"{block.place}: name a language, one of {', '.join((*RUN, *READ))}"
        assert block.reason != "", f"{block.place}: say why it is not run"
        known = len(block.changes) + (block.reason is not None) + (block.elsewhere is not None)
        assert known == len(block.notes), f"{block.place}: no note is of the form {block.notes}"
        for old, _ in block.changes:
            assert old in block.text, f"{block.place}: there is no {old!r} to be replaced"
        if block.elsewhere is not None:
            test = CHECKOUT / block.elsewhere
            assert test.is_file(), f"{block.place}: there is no {test}"
            assert Path(document).name in test.read_text(), f"{block.place}: {test} does not name it"


def test_json_and_toml_in_the_documents_can_be_read() -> None:
    for document in PAGES:
        for block in blocks(document, "json"):
            json.loads(block.text)
        for block in blocks(document, "toml"):
            tomllib.loads(block.text)


def _lines(block: Block) -> list[str]:
    """Return the lines of a block: those that go on after a backslash as one, of text without a note behind them."""
    if block.language == "bash":
        return re.sub(r"\\\n *", "", block.as_run).splitlines()
    return [re.split(r" {3,}", line)[0] for line in block.text.splitlines()]


def _commands(document: str) -> Iterator[tuple[str, list[str], bool]]:
    """Yield every command of ours in a document: where it stands, its words, and whether it is to be complete."""
    for block in blocks(document, "bash", "text"):
        for line in _lines(block):
            if block.language == "bash":
                yield from ((block.place, words, True) for words in _all_words(line))
            elif line.startswith(("hpo ", "hpo-worker ")):
                yield block.place, shlex.split(line, comments=True), False
    plain = re.sub(r"^ *```.*?^ *```", "", (CHECKOUT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"`(hpo(?:-worker)? [^`\n]+)`", plain):
        yield document, line.split(), False


def _all_words(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours in a line of a shell."""
    for part in _OPERATORS.split(line):
        if found := _COMMAND.match(part):
            yield shlex.split(part[found.end() :], comments=True)


@cache
def _root(name: str) -> Any:
    return whole() if name == "hpo" else get_command(worker_app)


@pytest.mark.parametrize("document", PAGES)
def test_the_commands_in_the_documents_are_understood(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_URL", raising=False)
    for place, (name, *words), complete in _commands(document):
        if words in (["--help"], ["--version"]):
            continue
        try:
            _parse(_root(name), name, in_front(words) if name == "hpo" else words, complete=complete)
        except Exception as error:  # of click, which the versions of Typer import from different places
            raise AssertionError(f"{place} says {name} {' '.join(words)}: {error}") from error


def _parse(command: Any, name: str, words: list[str], *, complete: bool) -> None:
    """Let the parser of a command read its words, as far down as they go; what is only mentioned may lack arguments."""
    context = command.make_context(name, list(words), resilient_parsing=not complete)
    while hasattr(context.command, "resolve_command") and (left := [*context._protected_args, *context.args]):
        name, command, rest = context.command.resolve_command(context, left)
        assert command is not None, f"there is no command {left[0]}"
        context = command.make_context(name, rest, parent=context, resilient_parsing=not complete)
    if context.ignore_unknown_options:  # what it does not know, it hands to workers
        _parse(_root("hpo-worker"), "hpo-worker", context.args, complete=complete)
