"""`hpo models weights` on a file of each layout, and on files that are broken: what is printed is the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hpo.cli.app import app

from ...models.weights.test_broken_files import BROKEN
from ...models.weights.test_layouts import EXPECTED, write

# The smallest files; those of the other programs are identified in the tests of the layouts, and one of flow below.
_QUICK = ("mmaction-x3d-m", "ibm-s3d", "kylemin-s3d")


def run(home: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["--home", str(home), "models", "weights", *map(str, arguments)])


@pytest.mark.parametrize(
    "name", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED]
)
def test_a_file_of_a_layout_is_named_and_fits_with_what_is_printed(name: str, tmp_path: Path) -> None:
    layout, network, fits = EXPECTED[name]
    path = write(name, tmp_path)
    said = run(tmp_path, path)
    assert said.exit_code == 0, said.output
    first = said.output.splitlines()[0]
    assert first.startswith(f"{path}: {network}{', ' if network else ''}layout: {layout}")
    assert ", 5 classes, " in first
    rows = [line for line in said.output.splitlines() if line.startswith("│")]
    assert len(rows) == len(fits)
    for model, options in fits:
        assert any(
            f" {model} " in row and all(f"{key}={value}" in row for key, value in options.items()) for row in rows
        )

    model, options = fits[0]
    given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    same = json.loads(run(tmp_path, path, "--model", model, *given, "--json").output)
    assert [same["loading"][kind] for kind in ("reset", "kept", "dropped")] == [[], [], []]
    other = json.loads(run(tmp_path, path, "--model", model, *given, "--classes", "7", "--json").output)
    assert other["loading"]["reset"] == [*next(fit["reset"] for fit in other["fits"] if fit["model"] == model)]
    assert len(other["loading"]["loaded"]) == len(same["loading"]["loaded"]) - len(other["loading"]["reset"])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_sentence_and_no_table(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(BROKEN[name][0]())
    said = run(tmp_path, tmp_path / name)
    assert said.exit_code == 1
    assert said.output == ""
    message = str(said.exception)
    assert message.startswith(str(tmp_path / name))
    assert "\n" not in message
    assert not (tmp_path / "exploded").exists()


def test_a_folder_is_one_sentence(tmp_path: Path) -> None:
    assert str(run(tmp_path, tmp_path).exception) == f"{tmp_path} cannot be read: it is a folder: name a file in it"


def test_a_file_of_flow_is_loaded_into_clips_of_its_channels(tmp_path: Path) -> None:
    path = write("mit-tsm-r50-flow", tmp_path)
    loading = json.loads(run(tmp_path, path, "--model", "tsm_resnet50", "--json").output)["loading"]
    assert (loading["adapted"], loading["reset"]) == ([], [])
    colour = run(tmp_path, path, "--model", "tsm_resnet50", "--channels", "3")
    assert "of another shape conv1.weight is (64, 10, 7, 7) and must be (64, 3, 7, 7)" in str(colour.exception)
