"""Reading the arguments of `hpo study enqueue`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.cli.guesses import read_guesses
from hpo.errors import SpecError


def test_values_are_one_guess_and_files_hold_one_or_several(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("lr: 1e-3\nmodel: {name: slowfast_r18, alpha: 8}\n")
    (tmp_path / "two.json").write_text('[{"lr": 0.1}, {"lr": 0.2, "precision": "fp32"}]')
    found = read_guesses([str(tmp_path / "one.yaml"), "lr=1e-2", str(tmp_path / "two.json"), "clip.frames=8"])
    assert found == [
        {"lr": 0.001, "model": "slowfast_r18", "model.alpha": 8},
        {"lr": 0.1},
        {"lr": 0.2, "precision": "fp32"},
        {"lr": 0.01, "clip.frames": 8},
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("lr: [1, 2]", "lr: .1, 2. is not a valid value"),
        ("lr: 2020-01-01", "is not a valid value"),
        ("lr: .nan", "is not a valid value"),
        ("- 3", "must hold a configuration"),
        ("", "must hold a configuration"),
        ("{", "is not valid YAML"),
        (None, "cannot be read .*KEY=VALUE"),
    ],
)
def test_an_invalid_guess_is_reported_in_one_sentence(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "guess.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpecError, match=rf"guess\.yaml.*{words}"):
        read_guesses([str(path)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["lr=0.1", "lr=0.2"], "lr: is given twice, as 0.1 and 0.2"), (["=3"], "=3: does not name a parameter")],
)
def test_values_name_one_parameter_each(arguments: list[str], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read_guesses(arguments)
