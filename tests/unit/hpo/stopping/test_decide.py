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

from hpo.spec.tasks.task import Direction
from hpo.stopping.curve_model import CurveModel, rungs
from hpo.stopping.decide import decide, promotions
from hpo.trial import Decision, TrialRecord, TrialState

from ..records import record_of, spec_with

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
    """Return stops and reports of a game in which Optuna and ours see the same curves in the same random order."""
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


def test_without_a_rule_a_trial_is_never_stopped() -> None:
    assert decide(spec_with(), record_of(0, values=[0.0] * 5), DONE) is Decision.CONTINUE


def test_a_trial_is_not_stopped_before_min_epochs() -> None:
    spec = spec_with(early_stopping=MEDIAN)
    assert decide(spec, record_of(0, values=[0.1] * 2), DONE) is Decision.CONTINUE
    assert decide(spec, record_of(0, values=[0.1] * 3), DONE) is Decision.STOP


def test_a_trial_is_not_stopped_after_the_last_epoch() -> None:
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


def test_an_infeasible_trial_does_not_count_as_the_leader() -> None:
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


def test_a_report_without_the_objective_does_not_stop_a_trial() -> None:
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


# ---------------------------------------------------------------- the model of curves

CURVES = {"name": "curves"}


def _power_laws(count: int, seed: int, noise: float, epochs: int) -> list[list[float]]:
    """Return curves that cross: ends, heights and speeds are independent."""
    rng = random.Random(seed)  # noqa: S311 - a game, not a secret
    drawn = [(rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.3), rng.uniform(0.4, 1.2)) for _ in range(count)]
    return [
        [end - height * step**-speed + rng.gauss(0, noise) for step in range(1, epochs + 1)]
        for end, height, speed in drawn
    ]


def _study(rule: dict[str, Any], curves: list[list[float]], direction: Direction) -> list[TrialRecord]:
    """Return the trials of a study, run one after the other."""
    epochs, sign = len(curves[0]), 1.0 if direction == "maximize" else -1.0
    spec = spec_with(epochs=epochs, objectives=[{"metric": "val_top1", "direction": direction}], early_stopping=rule)
    records: list[TrialRecord] = []
    for number, curve in enumerate(curves):
        state, shown = TrialState.COMPLETED, [sign * value for value in curve]
        for step in range(1, epochs):
            if decide(spec, record_of(number, values=shown[:step]), records) is Decision.STOP:
                state, shown = TrialState.STOPPED, shown[:step]
                break
        records.append(record_of(number, state, values=shown, metrics={"val_top1": shown[-1]}))
    return records


@pytest.mark.parametrize(
    ("epochs", "noise", "direction"), [(3, 0, "maximize"), (27, 0.01, "minimize"), (60, 0, "maximize")]
)
def test_curves_spends_few_epochs_and_keeps_the_best(epochs: int, noise: float, direction: Direction) -> None:
    spent = stopped = 0
    for seed in range(2):
        curves = _power_laws(30, seed, noise, epochs)
        records = _study(CURVES, curves, direction)
        spent += sum(len(record.curve) for record in records)
        best = max(range(30), key=lambda number: curves[number][-1])
        stopped += records[best].state is TrialState.STOPPED
    assert spent < 0.8 * 2 * 30 * epochs
    assert stopped == 0


def test_curves_learns_that_slow_starters_win() -> None:
    """Where the order at the start is the reverse of that at the end, a poor start is no reason to stop."""
    curves = [[0.5 + 0.05 * (number - 5) * (step - 4) / 5 for step in range(1, 10)] for number in range(10)]
    spec = spec_with(early_stopping={**CURVES, "startup_trials": 3})
    done = [record_of(n, TrialState.COMPLETED, values=curves[n], metrics={"val_top1": curves[n][-1]}) for n in range(9)]
    assert decide(spec, record_of(9, values=curves[9][:1]), done) is Decision.CONTINUE


def test_curves_waits_for_the_rungs() -> None:
    spec = spec_with(epochs=52, early_stopping=CURVES)
    done = [
        record_of(n, TrialState.COMPLETED, values=[0.8 + 0.01 * n] * 52, metrics={"val_top1": 0.8 + 0.01 * n})
        for n in range(8)
    ]
    poor = [0.1] * 51
    stopped = [step for step in range(1, 52) if decide(spec, record_of(9, values=poor[:step]), done) is Decision.STOP]
    assert {7, 8, 10, 33, 50}.isdisjoint(stopped)  # between the rungs 6, 9, 14, 21, 32
    assert {9, 14, 21, 32} <= set(stopped)
    assert min(stopped) >= 6  # a tenth


def test_curves_asks_less_of_a_trial_the_more_have_begun() -> None:
    """Of a few trials each may be the best: a chance of 0.01 to 0.1 is little among six and worth keeping among 150."""
    spec = spec_with(epochs=52, early_stopping=CURVES)
    curves = [[0.5 + 0.02 * n - 0.2 / step for step in range(1, 53)] for n in range(5)]
    done = [
        record_of(n, TrialState.COMPLETED, values=curve, metrics={"val_top1": curve[-1]})
        for n, curve in enumerate(curves)
    ]
    own = [0.54 - 0.2 / step for step in range(1, 7)]
    shown = [dict(enumerate(curve, start=1)) for curve in (*curves, own)]
    chance = CurveModel(shown, rungs(6, 52)).predict(shown[-1]).probability_above(max(curve[-1] for curve in curves))
    assert 0.01 < chance < 1 / 6
    assert decide(spec, record_of(9, values=own), done) is Decision.STOP
    young = [record_of(10 + n, values=[0.1]) for n in range(144)]
    few = spec_with(epochs=52, early_stopping={**CURVES, "protect": 0.001})
    assert decide(few, record_of(9, values=own), done) is Decision.STOP
    assert decide(few, record_of(9, values=own), [*done, *young]) is Decision.CONTINUE


# ---------------------------------------------------------------- several objectives, constraints, pausing

TWO = [{"metric": "val_top1"}, {"metric": "val_loss"}]


def _two(id: int, state: TrialState, top1: float, loss: float, steps: int = 9, **more: float) -> TrialRecord:
    row = {"val_top1": top1, "val_loss": loss, **more}
    return replace(
        record_of(id, state, metrics=row if state is TrialState.COMPLETED else None),
        curve=dict.fromkeys(range(1, steps + 1), row),
    )


@pytest.mark.parametrize("name", ["curves", "asha", "median"])
def test_several_objectives_stop_what_is_dominated_and_spare_the_front(name: str) -> None:
    spec = spec_with(objectives=TWO, early_stopping={"name": name, "startup_trials": 2, "min_epochs": 1})
    front = [_two(n, TrialState.COMPLETED, 0.5 + n / 20, 0.5 + n / 20) for n in range(6)]
    steps = 4 if name == "curves" else 3
    assert decide(spec, _two(9, TrialState.RUNNING, 0.1, 2.0, steps), front) is Decision.STOP
    assert decide(spec, _two(9, TrialState.RUNNING, 0.1, 0.3, steps), front) is Decision.CONTINUE
    assert decide(spec, _two(9, TrialState.RUNNING, 0.95, 2.0, steps), front) is Decision.CONTINUE


@pytest.mark.parametrize("name", ["curves", "asha", "median"])
def test_an_infeasible_trial_ranks_last(name: str) -> None:
    spec = spec_with(
        constraints=["epoch_seconds <= 10"],
        early_stopping={"name": name, "startup_trials": 2, "min_epochs": 1},
    )
    done = [_two(n, TrialState.COMPLETED, 0.5 + n / 50, 1.0, epoch_seconds=5.0 + n / 10) for n in range(6)]
    steps = 4 if name == "curves" else 3
    fast = _two(9, TrialState.RUNNING, 0.9, 1.0, steps, epoch_seconds=5.0)
    slow = _two(9, TrialState.RUNNING, 0.9, 1.0, steps, epoch_seconds=50.0)
    assert decide(spec, fast, done) is Decision.CONTINUE
    assert decide(spec, slow, done) is Decision.STOP


def test_a_pausing_rule_pauses_and_promotes_when_the_rung_fills_up() -> None:
    spec = spec_with(early_stopping={"name": "asha", "startup_trials": 0, "reduction": 3, "pause": True})
    trial = record_of(0, values=[0.5])
    first = record_of(1, values=[0.6])
    assert decide(spec, trial, [first]) is Decision.PAUSE
    paused = replace(trial, state=TrialState.PAUSED)
    poor = [record_of(n, TrialState.PAUSED, values=[0.1 + n / 100]) for n in range(2, 6)]
    assert promotions(spec, [paused, first, *poor[:3]]) == []
    assert promotions(spec, [paused, first, *poor]) == [0]  # second of six: within the best third


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "threshold", "lower": 0.3},
        {"name": "asha", "reduction": 2},
        {"name": "curves", "probability": 0.5},
        {"name": "patient", "patience": 1},
    ],
    ids=lambda rule: rule["name"],
)
@pytest.mark.parametrize("state", [TrialState.STOPPED, TrialState.FAILED, TrialState.RUNNING, TrialState.PAUSED])
def test_only_completed_trials_count_for_the_first_that_run_to_the_end(rule: dict[str, Any], state: TrialState) -> None:
    """These rules, unlike Optuna's median, do not count trials themselves."""
    spec = spec_with(early_stopping={"min_epochs": 1, "startup_trials": 3, **rule})
    poor = record_of(0, values=[0.2, 0.18, 0.16, 0.15])
    others = [record_of(id, state, values=[0.5, 0.55, 0.6, 0.65]) for id in range(4, 10)]
    assert decide(spec, poor, [*DONE[:2], *others]) is Decision.CONTINUE
    assert decide(spec, poor, [*DONE, *others]) is Decision.STOP


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES] + [{"name": "curves", "pause": True}])
def test_a_replicate_runs_to_its_end_and_is_no_rival(rule: dict[str, Any]) -> None:
    spec = spec_with(epochs=EPOCHS, early_stopping={"startup_trials": 1, **rule})
    ends = [[0.5 + 0.01 * number] * EPOCHS for number in range(6)]
    others = [
        record_of(number, TrialState.COMPLETED, values=curve, metrics={"val_top1": curve[-1]})
        for number, curve in enumerate(ends)
    ]
    bad = record_of(9, values=[0.1] * 6)
    assert decide(spec, replace(bad, replicate_of=3), others) is Decision.CONTINUE
    best = record_of(7, TrialState.COMPLETED, values=[0.99] * EPOCHS, metrics={"val_top1": 0.99}, replicate_of=0)
    paused = record_of(10, TrialState.PAUSED, values=[0.52] * 3)
    assert promotions(spec, [*others, best, paused]) == promotions(spec, [*others, paused])
    # As a trial of its own it would be the seventh that completes, and the rule would begin.
    late = spec_with(epochs=EPOCHS, early_stopping={**rule, "startup_trials": 7})
    assert decide(late, bad, [*others, best]) is Decision.CONTINUE
    if rule["name"] in ("median", "threshold"):
        assert decide(late, bad, [*others, replace(best, replicate_of=None)]) is Decision.STOP
