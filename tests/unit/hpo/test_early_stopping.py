"""Early stopping decides as Optuna's pruners do, within our guards."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.trial import TrialState as OptunaState

from hpo.early_stopping import decide
from hpo.spec.metrics import Direction
from hpo.trial import Decision, TrialRecord, TrialState

from .records import record_of, spec_with

EPOCHS = 9
RULES: list[tuple[dict[str, Any], Callable[[], BasePruner]]] = [
    ({"name": "median", "min_epochs": 2, "startup_trials": 2}, lambda: MedianPruner(2, 2)),
    ({"name": "percentile", "percentile": 25, "startup_trials": 1}, lambda: PercentilePruner(25, 1, 1)),
    ({"name": "asha", "min_epochs": 1, "reduction": 3}, lambda: SuccessiveHalvingPruner(1, 3)),
    ({"name": "asha", "min_epochs": 2, "reduction": 2}, lambda: SuccessiveHalvingPruner(2, 2)),
    ({"name": "hyperband", "min_epochs": 1, "reduction": 3}, lambda: HyperbandPruner(1, EPOCHS, 3)),
    ({"name": "hyperband", "min_epochs": 2, "reduction": 2}, lambda: HyperbandPruner(2, EPOCHS, 2)),
    ({"name": "threshold", "lower": 0.3, "upper": 0.9, "min_epochs": 3}, lambda: ThresholdPruner(0.3, 0.9, 3)),
    ({"name": "patient", "patience": 2}, lambda: PatientPruner(None, 2)),
]


def _play(rule: dict[str, Any], pruner: Callable[[], BasePruner], direction: Direction, seed: int) -> tuple[int, int]:
    """Drive Optuna and ours with the same curves, reported in the same random order; give stops and reports."""
    rng = random.Random(seed)  # noqa: S311 - a game, not a secret
    sign = 1.0 if direction == "maximize" else -1.0
    spec = spec_with(
        epochs=EPOCHS,
        objectives=[{"metric": "val_top1", "direction": direction}],
        early_stopping={"startup_trials": 0, **rule},
    )
    study = optuna.create_study(study_name=spec.name, direction=direction, pruner=pruner())
    records: dict[int, TrialRecord] = {}
    running: dict[int, optuna.Trial] = {}
    stops = reports = 0
    for _ in range(150):
        if len(running) < 4 and (not running or rng.random() < 0.2):
            trial = study.ask()
            running[trial.number] = trial
            records[trial.number] = record_of(trial.number)
        number = rng.choice(list(running))
        trial, record = running[number], records[number]
        step, value = len(record.curve) + 1, rng.randint(0, 20) / 20
        record = replace(record, curve={**record.curve, step: {"val_top1": value}})
        records[number] = record
        trial.report(value, step)
        asked = trial.should_prune()

        peaks = {key: max(sign * row["val_top1"] for row in r.curve.values()) for key, r in records.items() if r.curve}
        completed = sum(r.state is TrialState.COMPLETED for r in records.values())
        allowed = (
            spec.early_stopping.min_epochs <= step < EPOCHS  # type: ignore[union-attr]  # not "none"
            and completed >= spec.early_stopping.startup_trials  # type: ignore[union-attr]  # not "none"
            and peaks[number] < max(peaks.values())
        )
        decision = decide(spec, record, list(records.values()))
        assert decision is (Decision.STOP if asked and allowed else Decision.CONTINUE)

        reports += 1
        if decision is Decision.STOP:
            study.tell(trial, state=OptunaState.PRUNED)
            records[number] = replace(record, state=TrialState.STOPPED, metrics=record.curve[step])
            stops += 1
        elif step == EPOCHS:
            study.tell(trial, value)
            records[number] = replace(record, state=TrialState.COMPLETED, metrics=record.curve[step])
        if records[number].state is not TrialState.RUNNING:
            del running[number]
    return stops, reports


@pytest.fixture(autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("rule", "pruner"), RULES, ids=lambda value: value["name"] if isinstance(value, dict) else "")
def test_decides_as_the_pruner_in_a_plain_study(
    rule: dict[str, Any], pruner: Callable[[], BasePruner], direction: Direction
) -> None:
    played = [_play(rule, pruner, direction, seed) for seed in range(6)]
    stops, reports = map(sum, zip(*played, strict=True))
    assert 0 < stops < reports / 2  # both answers were compared


MEDIAN = {"name": "median", "min_epochs": 3, "startup_trials": 2}
DONE = [record_of(i, TrialState.COMPLETED, values=[0.5] * 9, metrics={"val_top1": 0.5}) for i in range(1, 4)]


def test_none_never_stops() -> None:
    assert decide(spec_with(), record_of(0, values=[0.0] * 5), DONE) is Decision.CONTINUE


def test_not_before_min_epochs() -> None:
    spec = spec_with(early_stopping=MEDIAN)
    assert decide(spec, record_of(0, values=[0.1] * 2), DONE) is Decision.CONTINUE
    assert decide(spec, record_of(0, values=[0.1] * 3), DONE) is Decision.STOP


def test_not_after_the_last_epoch() -> None:
    assert decide(spec_with(early_stopping=MEDIAN), record_of(0, values=[0.1] * 9), DONE) is Decision.CONTINUE


def test_the_first_trials_run_to_the_end() -> None:
    spec = spec_with(early_stopping=MEDIAN)
    stopped = record_of(9, TrialState.STOPPED, values=[0.5] * 4)
    assert decide(spec, record_of(0, values=[0.1] * 3), [*DONE[:1], stopped]) is Decision.CONTINUE


@given(seed=st.integers(0, 2**32), name=st.sampled_from(["median", "percentile", "asha", "hyperband", "patient"]))
@settings(max_examples=40, deadline=None)
def test_the_best_trial_is_never_stopped(seed: int, name: str) -> None:
    rng = random.Random(seed)  # noqa: S311 - a game, not a secret
    rule: dict[str, Any] = {"name": name, "startup_trials": 0, "min_epochs": 1}
    spec = spec_with(early_stopping={**rule, "percentile": 1} if name == "percentile" else rule)
    curves = [[rng.random() for _ in range(rng.randint(1, 8))] for _ in range(6)]
    states = (TrialState.COMPLETED, TrialState.STOPPED, TrialState.RUNNING)
    records = [record_of(i, rng.choice(states), values=curve) for i, curve in enumerate(curves)]
    leader = max(range(6), key=lambda place: max(curves[place]))
    assert decide(spec, replace(records[leader], state=TrialState.RUNNING), records) is Decision.CONTINUE


def test_an_infeasible_leader_is_no_leader() -> None:
    spec = spec_with(early_stopping={**MEDIAN, "min_epochs": 1}, constraints=["epoch_seconds <= 10"])

    def timed(record: TrialRecord, seconds: float) -> TrialRecord:
        curve = {step: {**row, "epoch_seconds": seconds} for step, row in record.curve.items()}
        return replace(record, curve=curve, metrics=None)

    declining = record_of(0, values=[0.6, 0.2, 0.1])
    rule = {"name": "patient", "patience": 1, "startup_trials": 0}
    patient = spec.model_copy(update={"early_stopping": spec_with(early_stopping=rule).early_stopping})
    others = [timed(record, 5) for record in DONE]
    assert decide(patient, timed(declining, 5), others) is Decision.CONTINUE
    assert decide(patient, timed(declining, 50), others) is Decision.STOP


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_count_for_nothing(bad: float) -> None:
    spec = spec_with(early_stopping=MEDIAN)
    assert decide(spec, record_of(0, values=[0.1, 0.1, 0.1, bad]), DONE) is Decision.CONTINUE
    broken = record_of(7, values=[bad] * 5)
    assert decide(spec, record_of(0, values=[0.1] * 4), [*DONE, broken]) is Decision.STOP
    assert decide(spec, record_of(0, values=[0.9] * 4), [*DONE, broken]) is Decision.CONTINUE


def test_a_report_without_the_objective_is_no_reason_to_stop() -> None:
    spec = spec_with(early_stopping=MEDIAN)
    record = record_of(0, values=[0.1] * 3)
    record = replace(record, curve={**record.curve, 4: {"train_loss": 1.0}})
    assert decide(spec, record, DONE) is Decision.CONTINUE


def test_withdrawn_trials_and_the_trial_itself_do_not_count() -> None:
    spec = spec_with(early_stopping={**MEDIAN, "startup_trials": 3})
    withdrawn = [replace(record, state=TrialState.WITHDRAWN) for record in DONE[1:]]
    trial = record_of(0, values=[0.1] * 3)
    assert decide(spec, trial, [DONE[0], *withdrawn, replace(trial, state=TrialState.COMPLETED)]) is Decision.CONTINUE


def test_resumed_trials_are_judged_by_the_first_step_after_a_rung() -> None:
    """A trial whose steps 3 and 4 were lost passes the rung of 3 with its value at step 5."""
    spec = spec_with(early_stopping={"name": "asha", "min_epochs": 3, "startup_trials": 0})
    gap = replace(record_of(1), curve={step: {"val_top1": value} for step, value in ((1, 0.0), (2, 0.0), (5, 0.6))})
    rivals = [gap, record_of(2, values=[0.9] * 2)]
    assert decide(spec, record_of(0, values=[0.0, 0.0, 0.5]), rivals) is Decision.STOP
    assert decide(spec, record_of(0, values=[0.0, 0.0, 0.7]), rivals) is Decision.CONTINUE
