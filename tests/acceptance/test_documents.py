"""What the documents say holds: specs are valid, defaults are those of the code, commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpo.cli.demo import demo_spec
from hpo.cli.spec_check import check_models, search_fragment
from hpo.errors import SpecError
from hpo.spec import TrainingConfig, parse_spec

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), *CHECKOUT.glob("docker/*.md")])


def _blocks(language: str) -> list[str]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for document in DOCUMENTS for block in pattern.findall(document.read_text())]


def test_the_specs_in_the_documents_are_valid() -> None:
    specs = [raw for block in _blocks("yaml") if "objectives" in (raw := yaml.safe_load(block))]
    assert specs
    for raw in specs:
        assert not check_models(parse_spec(raw, search_fragment))


def test_the_spec_of_the_demo_is_valid(tmp_path: Path) -> None:
    assert not check_models(parse_spec(demo_spec(tmp_path)))


def test_the_settings_in_the_readme_have_the_defaults_it_gives() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \| ([^|]+) \|", readme, re.MULTILINE)
    defaults, checked = TrainingConfig().to_flat(), 0
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


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"^ {4}(hpo [a-z-]+)", (CHECKOUT / "README.md").read_text(), re.M)))
)
def test_the_commands_of_the_readme_exist(line: str) -> None:
    command = [str(Path(sys.executable).with_name("hpo")), *line.split()[1:], "--help"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
