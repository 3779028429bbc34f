"""A table of real trainings as a problem of the simulated service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.optimizer.problems import ProblemMissing, load_problem
from benchmarks.optimizer.reference import Reference, compute_reference
from benchmarks.optimizer.service import simulate
from hpo.trial import FailureKind

HEADER: dict[str, Any] = {
    "what": "three learning rates",
    "space": {"lr": {"type": "float", "low": 1e-3, "high": 1.0, "log": True}},
    "levels": {"lr": [0.00316, 0.0316, 0.316]},
    "base": {},
    "epochs": 3,
    "chance": 0.25,
    "validation_clips": 20,
    "final_clips": 100,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a table of three configurations, the last of which fails in its third epoch."""
    rows: list[dict[str, Any]] = [
        {"params": {"lr": 0.00316}, "seed": 0, "hits": [5, 6, 7], "final_hits": 40, "seconds": [2.0, 2.0, 2.0]},
        {"params": {"lr": 0.00316}, "seed": 1, "hits": [6, 7, 8], "final_hits": 60, "seconds": [2.0, 2.0, 2.0]},
        {"params": {"lr": 0.0316}, "seed": 0, "hits": [9, 12, 14], "final_hits": 70, "seconds": [4.0, 4.0, 4.0]},
        {
            "params": {"lr": 0.316}, "seed": 0, "hits": [5, 5], "seconds": [4.0, 4.0],
            "failure": {"kind": "diverged", "epoch": 3},
        },
    ]  # fmt: skip
    lines = [HEADER, *({**row, "loss": [1.0] * len(row["hits"])} for row in rows)]
    (tmp_path / "motion.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return tmp_path


def test_a_trial_reports_one_of_the_measured_trainings(folder: Path) -> None:
    problem = load_problem("trained_motion", tables=folder)
    assert (problem.epochs, problem.optimum, problem.median) == (3, (0.7,), 0.5)
    assert problem.training is not None
    drawn = [problem.training({"lr": 0.002}, np.random.default_rng(seed)) for seed in range(20)]
    assert {found.values for found in drawn} == {(0.25, 0.3, 0.35), (0.3, 0.35, 0.4)}
    assert np.mean([found.seconds for found in drawn]) == pytest.approx(2.0, rel=0.05)
    assert len({found.seconds for found in drawn}) == 20
    assert problem.true({"lr": 0.002}) == (0.5,)
    assert problem.end is not None
    assert problem.end({"lr": 0.002}) == pytest.approx(0.375)


def test_a_training_that_failed_fails_in_its_epoch(folder: Path) -> None:
    problem = load_problem("trained_motion", tables=folder)
    assert problem.training is not None
    found = problem.training({"lr": 0.9}, np.random.default_rng(0))
    assert (found.values, len(found.seconds), found.failure) == ((0.25, 0.25), 3, FailureKind.DIVERGED)
    assert problem.true({"lr": 0.9}) == (0.25,)


def test_a_table_is_played_and_may_be_reflected(folder: Path) -> None:
    for scramble in (None, 1, 2):
        problem = load_problem("trained_motion", tables=folder, scramble=scramble)
        found = simulate(problem, "sobol", 0, trials=8)
        assert {trial.state for trial in found.trials} == {"completed", "failed"}
        assert {trial.truth for trial in found.trials} == {0.5, 0.7, 0.25}
        # The validation clips of these trainings show less than the truth, and a failure counts as guessing.
        assert {(trial.truth, round(trial.end, 3)) for trial in found.trials} == {
            (0.5, 0.375),
            (0.7, 0.7),
            (0.25, 0.25),
        }


def test_the_ends_of_the_regret_scale_are_those_of_the_table(folder: Path) -> None:
    found = compute_reference(load_problem("trained_motion", tables=folder))
    assert found == Reference(sign=-1.0, optimum=-0.7, median=-0.5)
    np.testing.assert_allclose(found.regret([0.7, 0.5, 0.25]), [0.0, 1.0, 2.25])


def test_a_table_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ProblemMissing):
        load_problem("trained_people", tables=tmp_path)
