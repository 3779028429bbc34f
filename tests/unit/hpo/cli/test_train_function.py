"""`hpo train --entry`: a person's function with the configuration of an export, in a real process of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from hpo.errors import SetupError

from .exports import Bench

FUNCTION = """
import random

def train(trial):
    best = 0.0
    for epoch in trial.epochs():
        best = trial.params["x"] + epoch + random.random()
        trial.report(score=best, checkpoint=b"weights")
"""


def _export(file: Path, **changes: Any) -> Path:
    document = {
        "format_version": 1,
        "study": "own",
        "trial": 4,
        "state": "completed",
        "objectives": {"score": 0.5},
        "metrics": {"score": 0.5},
        "config": {"x": 0.25, "seed": 7},
        "task": {"kind": "custom", "metrics": {"score": "maximize"}, "epochs": 3},
        "epochs_done": 3,
        "seed": 7,
        "dataset_version": None,
        "environment": {"entry": {"name": "mine.py:train", "sha256": "0" * 64}, "device": "cpu", "threads": 1},
        "checkpoint": None,
        **changes,
    }
    file.write_text(yaml.safe_dump(document))
    return file


def _train(tmp_path: Path, *options: str, **changes: Any) -> Result:
    (tmp_path / "mine.py").write_text(FUNCTION)
    bench = Bench(home=tmp_path / "home", videos=tmp_path)
    return bench.run("train", _export(tmp_path / "best.yaml", **changes), *options)


def _score(result: Result) -> float:
    assert result.exit_code == 0, result.exception
    return float(result.stdout.split("score = ")[1].split()[0])


def test_the_function_runs_again_to_the_same_value_with_the_seed_of_its_trial(tmp_path: Path) -> None:
    entry = f"{tmp_path}/mine.py:train"
    first = _train(tmp_path, "--entry", entry)
    value = _score(first)
    assert 3.25 <= value < 4.25
    assert "another version" in first.stdout
    digest = hashlib.sha256(b"mine.py:train\n" + f"mine.py {len(FUNCTION)}\n".encode() + FUNCTION.encode()).hexdigest()
    known = {"entry": {"name": "mine.py:train", "sha256": digest}, "device": "cpu", "threads": 1}
    again = _train(tmp_path, "--entry", entry, objectives={"score": value}, metrics={"score": value}, environment=known)
    assert _score(again) == value
    assert "the same" in again.stdout
    assert "another version" not in again.stdout
    checkpoint = again.stdout.split("checkpoint: ")[1].split("score =")[0].replace("\n", "")
    assert Path(checkpoint).exists()


def test_a_trial_that_was_stopped_is_stopped_at_the_same_epoch(tmp_path: Path) -> None:
    result = _train(tmp_path, "--entry", f"{tmp_path}/mine.py:train", state="stopped", epochs_done=2)
    assert 2.25 <= _score(result) < 3.25


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "say with --entry which it is"),
        (("--entry", "mine:train", "--resume"), "are for models"),
        (("--entry", "mine"), "write MODULE:FUNCTION"),
    ],
)
def test_what_cannot_be_run_is_a_sentence(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = _train(tmp_path, *options)
    assert isinstance(result.exception, SetupError)
    assert words in str(result.exception)
