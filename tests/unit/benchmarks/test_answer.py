"""The benchmark of the answer: what is chosen, and how far what is told of it is from the truth."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.optimizer.__main__ import main
from benchmarks.optimizer.answer import Run, choices, lines
from benchmarks.optimizer.methods import Origin
from benchmarks.optimizer.problems.training import Training
from benchmarks.optimizer.service import Trial
from hpo.answer import answer
from hpo.spec import parse_spec
from hpo.trial import TrialRecord, TrialState

SPEC = parse_spec(
    {
        "name": "study",
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": "/none"}, "epochs": 8},
        "space": {"lr": {"type": "float", "low": 0.001, "high": 0.1}},
        "budget": {"trials": 9},
    }
)
LUCK = np.array([0.03, -0.03, 0.02, -0.02, 0.03, -0.03, 0.02, -0.02])


def _study(levels: dict[int, tuple[float, float]]) -> tuple[list[TrialRecord], dict[int, Trial]]:
    """Return trials whose epochs scatter around a level, and end with a value of their own."""
    records, trials = [], {}
    for number, (level, last) in levels.items():
        values = [*(level + LUCK[:-1] * (-1) ** number).tolist(), last]
        params = {"lr": 0.01 * (number + 1)}
        curve = {step: {"val_top1": value} for step, value in enumerate(values, 1)}
        records.append(
            TrialRecord(
                id=10 + number,
                number=number,
                state=TrialState.COMPLETED,
                params=params,
                curve=curve,
                metrics=curve[8],
                epochs_done=8,
            )
        )
        trials[10 + number] = Trial(
            number=number,
            id=10 + number,
            params=dict(params),
            origin=Origin(generator="sobol", is_model=False),
            training=Training(values=tuple(values), seconds=(1.0,) * 8),
            truth=level,
            end=level,
            began=0.0,
        )
    return records, trials


def _run() -> Run:
    """The second trial is the best; the last epoch of the first was lucky."""
    records, trials = _study({0: (0.5, 0.68), 1: (0.65, 0.65), 2: (0.4, 0.4), 3: (0.3, 0.3)})
    known = answer(SPEC, records)
    assert known is not None
    return choices(known, records, trials, optimum=0.7)


def test_the_luckiest_is_worse_than_it_was_told_and_the_answer_is_the_best() -> None:
    found = _run()
    luckiest, best = found["luckiest"], found["answer"]
    assert [luckiest.regret, luckiest.behind] == pytest.approx([0.2, 0.15])
    assert luckiest.told == pytest.approx(0.18)
    assert [best.regret, best.behind] == pytest.approx([0.05, 0.0])
    assert abs(best.told) < 0.05
    assert 0.5 < best.probability <= 1
    assert found["believed"].regret == best.regret


def test_a_line_for_each_rule_has_the_means_over_the_runs() -> None:
    found = lines("demo 0.03", [_run(), _run()], "+0.010")
    assert [line.split()[2] for line in found] == ["luckiest", "believed", "answer"]
    assert found[0].split()[3:5] == ["0.2000", "0.1500"]
    assert "+0.1800 ± 0.0000   +0.010   0.00" in found[0]
    assert re.search(r" 1\.00 +0\.\d\d +1\.00$", found[2]), "the best in both runs, the probability, the coverage"


def test_the_command_compares_the_rules_with_and_without_stopping(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--problems", "demo", "--noise", "0.03", "--seeds", "0", "--trainings", "3"]
    assert main(["answer", *chosen]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["problem", "rule"]
    assert [row[:24].strip() for row in rows] == ["demo 0.03"] * 3 + ["demo 0.03+asha"] * 3
