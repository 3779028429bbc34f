"""`hpo study create --check`: what a study would be, without a service."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpo.cli import main
from hpo.optimizer import create_optimizer
from hpo.spec import parse_spec

SPEC: dict[str, Any] = {
    "name": "small",
    "objectives": [{"metric": "val_top1"}],
    "task": {"dataset": {"root": "/nowhere/videos"}, "epochs": 10},
    "space": {
        "lr": {"type": "ordinal", "choices": [0.001, 0.01, 0.1]},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8, "step": 0.2},
    },
    "optimizer": {"enqueue": [{"lr": 0.01, "dropout": 0.2}]},
    "budget": {"trials": 12, "gpu_hours": 3.0},
}


def _check(monkeypatch: pytest.MonkeyPatch, text: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(SystemExit) as ended:
        main(["study", "create", "-", "--check", "--url", "http://127.0.0.1:1"])
    return int(ended.value.code or 0)


def test_size_cost_data_and_first_trials_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _check(monkeypatch, yaml.safe_dump(SPEC, sort_keys=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "small: the spec is right; nothing was stored",
        "space: 2 parameters, 15 configurations",
        "budget: 12 trials of 10 epochs, 120 epochs without early stopping, or 3 GPU hours",
        "data set: not on this machine (there is no folder /nowhere/videos); a worker needs it",
        "first trials: lr 0.01, dropout 0.2",
    ]
    # The others are those that the service would begin with.
    proposed = [suggestion.params for suggestion in create_optimizer(parse_spec(SPEC)).ask(3)]
    assert lines[5:7] == [f"{'':13} lr {params['lr']:.3g}, dropout {params['dropout']:.3g}" for params in proposed[1:]]
    assert re.fullmatch(r"memory: [\d.]+ GiB for an update of these in float32 \(.*\)", lines[7])
    assert re.fullmatch(r"computation: [\d.]+ GFLOP for a clip, forward and backward", lines[8])


def test_the_clips_of_a_data_set_that_is_here_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("run", "walk"):
        for group in range(4):
            file = tmp_path / label / f"v_{label}_g{group:02d}_c01.avi"
            file.parent.mkdir(exist_ok=True)
            file.touch()
    task = {"dataset": {"root": str(tmp_path), "name": "auto"}, "epochs": 10}
    assert _check(monkeypatch, yaml.safe_dump({**SPEC, "task": task, "budget": {"wall_hours": 2}})) == 0
    said = capsys.readouterr().out
    assert "budget: 2 hours, for trials of 10 epochs" in said
    assert " validation clip" in said
    assert "note: " in said, "so few clips show nothing"


@pytest.mark.parametrize(("text", "words"), [("{", "standard input: is not valid YAML"), ("name: x", "objectives")])
def test_a_wrong_spec_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    assert _check(monkeypatch, text) == 2
    assert words in capsys.readouterr().err
