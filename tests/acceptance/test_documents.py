"""What the documents say holds: specs are valid, defaults are those of the code, commands exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from hpo.cli.app import app as hpo_app
from hpo.cli.demo import demo_spec
from hpo.cli.spec_check import check_models, search_fragment, with_models
from hpo.errors import SpecError
from hpo.spec import TrainingConfig, VideoTask, parse_spec
from hpo.spec.study import EarlyStopping
from workers.cli import app as worker_app

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), *CHECKOUT.glob("docker/*.md")])


def _blocks(language: str) -> list[str]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for document in DOCUMENTS for block in pattern.findall(document.read_text())]


def test_the_specs_in_the_documents_are_valid() -> None:
    specs = [raw for block in _blocks("yaml") if "objectives" in (raw := yaml.safe_load(block))]
    assert specs
    for raw in specs:
        assert with_models(parse_spec(raw, search_fragment)).name == raw["name"]


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
    raw = next(raw for block in _blocks("yaml") if "lr" in (raw := yaml.safe_load(block)).get("space", {}))
    raw["space"]["lr"]["low"] = 0
    with pytest.raises(SpecError) as caught:
        parse_spec(raw, search_fragment)
    assert f"    error: {caught.value}\n" in (CHECKOUT / "README.md").read_text()


def test_the_page_of_stopping_rules_has_a_row_for_each() -> None:
    known = {rule.model_fields["name"].annotation for rule in get_args(get_args(EarlyStopping)[0])}
    page = (CHECKOUT / "docs" / "early-stopping.md").read_text()
    table = page.partition("## Which rule")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z]+)`", row)} - {"name"} == {
        name for literal in known for name in get_args(literal)
    }


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of ours in a document, on a line of its own or quoted."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"^ {4}(hpo(?:-worker)? [^#\n]+)|`(hpo(?:-worker)? [^`\n]+)`", plain, re.MULTILINE):
        yield "".join(line).split()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_commands_in_the_documents_exist_with_their_options(document: Path) -> None:
    roots = {"hpo": get_command(hpo_app), "hpo-worker": get_command(worker_app)}
    for name, *words in _commands(document.read_text()):
        command = roots[name]
        while isinstance(command, TyperGroup) and words:
            if words[0] in {option for parameter in command.params for option in parameter.opts}:
                del words[:2]  # such as `--home FOLDER`; no group has an option without a value but --help
            elif words[0] in command.commands:
                command = command.commands[words.pop(0)]
            else:
                break
        said = f"{document.name} says {name} … {' '.join(words)}"
        assert not words or words == ["--help"] or not isinstance(command, TyperGroup), said
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= known | {"--help"}, said
