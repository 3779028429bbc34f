"""What is learned from failures: where configurations fail, and when a machine is at fault instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from hpo.optimizer.bayes.runnability import Evidence, RunnabilityModel, evidence_of, runnability
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.cube import decode
from hpo.optimizer.sobol import sobol_points
from hpo.spec import StudySpec
from hpo.trial import FailureKind, Params, TrialRecord, TrialState

from ...records import record_of, spec_with

SPACE = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "batch_size": {"type": "int", "low": 2, "high": 64, "log": True},
    "model": {"type": "categorical", "choices": ["slowfast_r50_4x16", "r2plus1d_18", "x3d_m"]},
}
SPEC = spec_with(space=SPACE)
GRID = [decode(SPEC, point.tolist()) for point in np.random.default_rng(5).random((100, 4))]
Fails = Callable[[Params], bool]


def _points(count: int, seed: int = 0, spec: StudySpec = SPEC) -> list[Params]:
    return [decode(spec, point.tolist()) for point in sobol_points(len(spec.space), seed, 7)[:count]]


def _seen(params: Params, *, failed: bool, machine: str | None = None) -> Evidence:
    return Evidence(params=params, failed=failed, machine=machine)


def _after(fails: Fails, trials: Sequence[Params]) -> RunnabilityModel:
    return RunnabilityModel(Space(SPEC), [_seen(params, failed=fails(params)) for params in trials])


def _right(model: RunnabilityModel, fails: Fails) -> float:
    """Return the share of the space about which `clearly_fails` is right."""
    return float(np.mean([model.clearly_fails(params) == fails(params) for params in GRID]))


@pytest.mark.parametrize(
    "fails",
    [
        pytest.param(lambda params: params["lr"] > 10 ** (-4 / 3), id="a side of a number"),
        pytest.param(lambda params: 0.2 < params["dropout"] < 0.4, id="a band"),
        pytest.param(lambda params: params["model"] == "x3d_m", id="a category"),
        pytest.param(lambda params: params["model"] != "x3d_m", id="all categories but one"),
        pytest.param(lambda params: params["lr"] > 5e-3 and params["batch_size"] > 9, id="both of two"),
        pytest.param(lambda params: params["lr"] > 0.2 or params["dropout"] > 0.5, id="either of two"),
        pytest.param(lambda params: params["lr"] * params["batch_size"] > 0.5, id="a product"),
    ],
)
def test_the_region_that_fails_is_found(fails: Fails) -> None:
    shares = [_right(_after(fails, _points(24, seed)), fails) for seed in range(3)]
    assert np.mean(shares) > 0.9


def test_four_failures_show_a_category() -> None:
    trials = [params for params in _points(64) if params["model"] != "slowfast_r50_4x16"][:8]
    model = _after(lambda params: params["model"] == "x3d_m", trials)
    assert model.of({**trials[0], "model": "x3d_m"}) < 0.3
    assert model.of({**trials[0], "model": "r2plus1d_18"}) > 0.8
    assert model.of({**trials[0], "model": "slowfast_r50_4x16"}) > 0.6  # never tried


def test_failures_anywhere_are_no_region() -> None:
    rng = np.random.default_rng(0)
    avoided, values = [], []
    for seed in range(5):
        model = RunnabilityModel(
            Space(SPEC), [_seen(params, failed=rng.random() < 0.15) for params in _points(30, seed)]
        )
        avoided += [model.clearly_fails(params) for params in GRID]
        values += [model.of(params) for params in GRID]
    assert np.mean(avoided) < 0.03
    assert np.median(values) > 0.8


def test_where_everything_fails_nothing_is_avoided() -> None:
    model = _after(lambda params: True, _points(20))
    values = [model.of(params) for params in GRID]
    assert max(values) < 0.2
    assert not any(model.clearly_fails(params) for params in GRID)


def test_without_failures_nothing_is_known() -> None:
    ran = record_of(0, TrialState.COMPLETED, metrics={"val_top1": 0.5})
    failed = record_of(1, TrialState.FAILED, failure_kind=FailureKind.OOM)
    assert runnability(spec_with(), [ran]) is None
    assert runnability(spec_with(), [ran, failed], explained={1}) is None
    assert runnability(spec_with(), [ran, failed]) is not None


@pytest.mark.parametrize("seed", range(2))
def test_every_failure_lowers_the_probability_there_and_every_success_raises_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    evidence = [_seen(params, failed=bool(rng.random() < 0.4)) for params in _points(12, seed)]
    for params in _points(30, seed)[12:]:
        # In the middle of a cell of each number, nothing is interpolated.
        lr, dropout = ((math.floor(128 * u) + 0.5) / 128 for u in rng.random(2))
        middle = {**params, "lr": 10 ** (4 * lr - 4), "dropout": 0.6 * dropout, "batch_size": 2}
        now = RunnabilityModel(Space(SPEC), evidence).of(middle)
        assert RunnabilityModel(Space(SPEC), [*evidence, _seen(middle, failed=True)]).of(middle) < now
        assert RunnabilityModel(Space(SPEC), [*evidence, _seen(middle, failed=False)]).of(middle) > now


# ---------------------------------------------------------------- machines


def _fleet(worst: str, fails: Fails) -> list[Evidence]:
    """Return trials of three machines, of which `worst` fails whatever it is given."""
    machines = ["one", "two", "three"]
    return [
        _seen(params, failed=fails(params) or machines[place % 3] == worst, machine=machines[place % 3])
        for place, params in enumerate(_points(24, seed=3))
    ]


def test_a_machine_that_loses_everything_says_little_about_configurations() -> None:
    evidence = _fleet("two", lambda params: False)
    assert sum(seen.failed for seen in evidence) == 8
    known = RunnabilityModel(Space(SPEC), evidence)
    assert min(known.of(params) for params in GRID) > 0.8
    unknown = RunnabilityModel(Space(SPEC), [_seen(seen.params, failed=seen.failed) for seen in evidence])
    assert max(unknown.of(params) for params in GRID) < 0.8


def test_a_region_is_found_beside_a_broken_machine() -> None:
    def fails(params: Params) -> bool:
        return bool(float(params["lr"]) > 0.05)

    model = RunnabilityModel(Space(SPEC), _fleet("two", fails))
    assert _right(model, fails) > 0.9


def test_failures_on_a_machine_that_runs_others_count_fully() -> None:
    def fails(params: Params) -> bool:
        return bool(float(params["lr"]) > 0.05)

    known = RunnabilityModel(Space(SPEC), _fleet("none", fails))
    unknown = _after(fails, [seen.params for seen in _fleet("none", fails)])
    for params in GRID[:50]:
        assert known.of(params) == pytest.approx(unknown.of(params), abs=0.05)


def test_a_region_is_found_where_every_trial_has_a_machine_of_its_own() -> None:
    def fails(params: Params) -> bool:
        return bool(float(params["lr"]) > 0.05)

    trials = enumerate(_points(24, seed=3))
    evidence = [_seen(params, failed=fails(params), machine=f"machine {place}") for place, params in trials]
    assert _right(RunnabilityModel(Space(SPEC), evidence), fails) > 0.9


# ---------------------------------------------------------------- what counts


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_of_failure_counts(kind: FailureKind) -> None:
    record = record_of(4, TrialState.FAILED, failure_kind=kind, worker="one")
    (seen,) = evidence_of([record])
    assert seen.failed
    assert (seen.machine == "one") == (kind in {"lost", "error", "invalid"})


def test_trials_that_ran_count_and_others_do_not() -> None:
    records: list[TrialRecord] = [
        record_of(0, TrialState.COMPLETED, metrics={"val_top1": 0.5}),
        record_of(1, TrialState.STOPPED, values=[0.1]),
        record_of(2, TrialState.RUNNING, values=[0.1]),
        record_of(3, TrialState.RUNNING),
        record_of(4, TrialState.SUGGESTED),
        record_of(5, TrialState.WITHDRAWN),
        record_of(6, TrialState.FAILED, failure_kind=FailureKind.OOM),
    ]
    assert [seen.failed for seen in evidence_of(records, explained={6})] == [False] * 3


# ---------------------------------------------------------------- as a weight of the acquisition


def test_every_lost_attempt_counts_against_its_machine() -> None:
    points = _points(3)
    records = [
        record_of(0, TrialState.COMPLETED, values=[0.5], params=points[0], worker="b", lost_on=("a",)),
        record_of(
            1, TrialState.FAILED, params=points[1], failure_kind=FailureKind.LOST, worker="c", lost_on=("a", "a", "c")
        ),
        record_of(2, TrialState.FAILED, params=points[2], failure_kind=FailureKind.ERROR, worker="b", lost_on=("a",)),
        record_of(3, TrialState.RUNNING, params=points[2], worker="b", lost_on=("c",)),
    ]
    assert [(seen.params, seen.failed, seen.machine) for seen in evidence_of(records)] == [
        (points[0], True, "a"),
        (points[0], False, "b"),
        (points[1], True, "a"),
        (points[1], True, "a"),
        (points[1], True, "c"),
        (points[2], True, "a"),
        (points[2], True, "b"),
        (points[2], True, "c"),
    ]


def test_a_machine_that_loses_the_first_attempts_is_seen_although_others_finish_the_trials() -> None:
    points = _points(8)
    others = [
        record_of(id, TrialState.COMPLETED, values=[0.5], params=params, worker="b", lost_on=("a",))
        for id, params in enumerate(points[:6])
    ]
    failed = record_of(6, TrialState.FAILED, params=points[6], failure_kind=FailureKind.ERROR, worker="a")
    blamed, blind = (
        runnability(SPEC, [*trials, failed]) for trials in (others, [replace(record, lost_on=()) for record in others])
    )
    assert blamed is not None
    assert blind is not None
    assert blamed.of(points[6]) > blind.of(points[6]), "a machine that fails everything explains this failure too"


def test_the_same_evidence_about_the_same_space_is_computed_once() -> None:
    points = _points(4)
    ran = [record_of(id, TrialState.COMPLETED, values=[0.5], params=points[id], worker="a") for id in (0, 1)]
    failed = record_of(2, TrialState.FAILED, params=points[2], failure_kind=FailureKind.ERROR, worker="a")
    first = runnability(SPEC, [*ran, failed])
    assert first is not None
    same = spec_with(space=SPACE, optimizer={"seed": 7})
    longer = replace(ran[0], curve={1: {"val_top1": 0.4}, 2: {"val_top1": 0.6}})
    assert runnability(same, [longer, ran[1], failed]) is first, "how well a trial does is no matter here"
    assert first.of(points[3]) == RunnabilityModel(Space(SPEC), evidence_of([*ran, failed])).of(points[3])
    wider = spec_with(space={**SPACE, "dropout": {"type": "float", "low": 0.0, "high": 0.7}})
    elsewhere = replace(failed, worker="b")
    explained = runnability(SPEC, [*ran, failed], frozenset({2}))
    others = (runnability(wider, [*ran, failed]), runnability(SPEC, [*ran, elsewhere]), explained)
    assert all(other is not first for other in others)
    assert explained is None


def test_gradients_are_those_of_the_probabilities() -> None:
    model = _after(lambda params: float(params["lr"]) * float(params["batch_size"]) > 0.5, _points(20))
    space = Space(SPEC)
    rows = np.stack([space.encode(params) for params in GRID[:10]])
    logs, gradient = model.logs(rows)
    assert np.exp(logs) == pytest.approx(model.values(rows))
    for row, slope in zip(rows, gradient, strict=True):
        for axis in range(2):

            def at(u: np.ndarray, row: np.ndarray = row, axis: int = axis) -> float:
                moved = row.copy()
                moved[axis] = u[0]
                return float(model.logs(moved[None])[0][0])

            assert slope[axis] == pytest.approx(approx_fprime(row[[axis]], at, 1e-7)[0], rel=1e-3, abs=1e-4)
    assert np.all(gradient[:, 3] == 0.0)


@pytest.mark.parametrize(("bad", "good"), [(4, 8), (8, 4)])
def test_a_region_of_a_conditional_parameter_leaves_other_branches_alone(bad: int, good: int) -> None:
    spec = spec_with()
    evidence = [_seen(params, failed=params.get("model.alpha") == bad) for params in _points(40, 0, spec)]
    model = RunnabilityModel(Space(spec), evidence)
    base = {"lr": 0.01, "weight_decay": 1e-4}
    assert model.of({**base, "model": "slowfast_r50_4x16", "model.alpha": bad}) < 0.3
    assert model.of({**base, "model": "slowfast_r50_4x16", "model.alpha": good}) > 0.8
    assert model.of({**base, "model": "r2plus1d_18"}) > 0.8
