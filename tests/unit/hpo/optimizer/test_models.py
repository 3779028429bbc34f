"""Proposals by a model: Ax, and Optuna's samplers behind the same interface."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.optimizer import Optimizer, create_optimizer
from hpo.optimizer.ax_generator import AxGenerator
from hpo.optimizer.ax_space import AxSpace
from hpo.optimizer.cube import decode, key_of
from hpo.optimizer.generator import GeneratorError
from hpo.optimizer.history import History
from hpo.spec import StudySpec, dump_spec, stored_spec
from hpo.trial import FailureKind, Params, Suggestion, TrialRecord, TrialState

from ..records import record_of, spec_with
from ..spec.specs import spaces

MODELS = ["ax", "tpe", "gp", "nsga2"]
SPACE: dict[str, Any] = {
    "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.8},
}


def _tried(spec: StudySpec, n: int, score: Callable[[Params], dict[str, float]]) -> Optimizer:
    """Return an optimizer that knows the outcome of `n` Sobol points."""
    optimizer = create_optimizer(spec)
    sobol = create_optimizer(spec.model_copy(update={"optimizer": spec_with(optimizer={"name": "sobol"}).optimizer}))
    for id, suggestion in enumerate(sobol.ask(n)):
        optimizer.register(id, suggestion)
        optimizer.tell(id, score(suggestion.params))
    return optimizer


def _bowl(params: Params) -> dict[str, float]:
    """Return a smooth objective with its peak of 1 at lr 0.01 and dropout 0.3."""
    lr, dropout = float(params["lr"]), float(params["dropout"])
    return {"val_top1": 1 - ((math.log10(lr) + 2) / 3) ** 2 - (dropout - 0.3) ** 2}


def _asked(spec: StudySpec, trials: int, score: Callable[[Params], dict[str, float]]) -> list[tuple[Suggestion, float]]:
    optimizer = create_optimizer(spec)
    found = []
    for id in range(trials):
        (suggestion,) = optimizer.ask()
        optimizer.register(id, suggestion)
        metrics = score(suggestion.params)
        optimizer.tell(id, metrics)
        found.append((suggestion, metrics["val_top1"]))
    return found


@pytest.mark.parametrize("name", MODELS)
@given(raw=spaces(), seed=st.integers(0, 100))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_proposals_are_valid_and_new(name: str, raw: dict[str, Any], seed: int) -> None:
    spec = spec_with(space=raw, optimizer={"name": name, "seed": seed, "startup_trials": 3})
    optimizer = _tried(spec, 4, lambda params: {"val_top1": (hash(str(params)) % 7) / 7})
    taken = optimizer.history().taken
    suggestions = optimizer.ask(2)
    keys = {key_of(suggestion.params) for suggestion in suggestions}
    for suggestion in suggestions:
        spec.check_params(suggestion.params)
    if any(parameter["type"] == "float" for parameter in raw.values()):
        assert len(keys) == 2
        assert not keys & taken


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("short_search")
def test_the_same_history_gives_the_same_proposal_after_a_restart(name: str) -> None:
    spec = spec_with(optimizer={"name": name, "startup_trials": 3, "seed": 4})
    lived = create_optimizer(spec)
    for id in range(6):
        (suggestion,) = lived.ask()
        lived.register(id, suggestion)
        if id == 3:
            lived.fail(id, FailureKind.DIVERGED)
        elif id == 4:
            lived.report(id, 2, {"val_top1": 0.2})
        else:
            lived.tell(id, {"val_top1": float(suggestion.params["lr"])})
    restarted = create_optimizer(spec)
    restarted.replay(reversed(lived.history().records))
    assert restarted.ask(2) == lived.ask(2)
    assert lived.ask()[0].generator == name


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("short_search")
def test_several_objectives_and_constraints(name: str) -> None:
    spec = spec_with(
        space=SPACE,
        objectives=[{"metric": "val_top1"}, {"metric": "epoch_seconds"}],
        constraints=["peak_memory_gib <= 4.5", "val_top1 >= 0.1"],
        optimizer={"name": name, "startup_trials": 3},
    )

    def score(params: Params) -> dict[str, float]:
        dropout = float(params["dropout"])
        return {**_bowl(params), "epoch_seconds": 10 * dropout + 1, "peak_memory_gib": 4 + dropout}

    (suggestion,) = _tried(spec, 6, score).ask()
    assert suggestion.generator == name


# ---------------------------------------------------------------- Ax


def test_ax_finds_more_than_sobol_with_as_many_trials() -> None:
    regrets = {
        name: [
            1 - max(value for _, value in _asked(spec, 14, _bowl))
            for seed in range(2)
            for spec in [spec_with(space=SPACE, optimizer={"name": name, "seed": seed, "startup_trials": 5})]
        ]
        for name in ("ax", "sobol")
    }
    assert max(regrets["ax"]) < min(regrets["sobol"]) / 3


def test_ax_predicts_the_objective_in_its_own_unit() -> None:
    optimizer = _tried(spec_with(space=SPACE), 12, lambda params: {"val_top1": 50 * _bowl(params)["val_top1"]})
    (suggestion,) = optimizer.ask()
    assert suggestion.predicted_mean == pytest.approx(50 * _bowl(suggestion.params)["val_top1"], abs=3)
    assert suggestion.predicted_sd is not None
    assert 0 < suggestion.predicted_sd < 10


def test_ax_minimizes_too() -> None:
    spec = spec_with(space=SPACE, objectives=[{"metric": "val_loss"}], optimizer={"startup_trials": 5})
    optimizer = _tried(spec, 10, lambda params: {"val_loss": -_bowl(params)["val_top1"]})
    assert _bowl(optimizer.ask()[0].params)["val_top1"] > 0.95


@pytest.mark.parametrize("constraints", [["epoch_seconds <= 6"], ["epoch_seconds <= 6", "epoch_seconds <= 8"]])
def test_ax_keeps_constraints(constraints: list[str]) -> None:
    """The peak lies at dropout 0.3, where the constraint does not hold."""
    spec = spec_with(space=SPACE, constraints=constraints)
    optimizer = _tried(spec, 12, lambda params: {**_bowl(params), "epoch_seconds": 10 - 8 * float(params["dropout"])})
    (suggestion,) = optimizer.ask()
    assert suggestion.generator == "ax"
    assert 0.45 < float(suggestion.params["dropout"]) < 0.65


def test_trials_stopped_early_inform_the_model() -> None:
    """Two trials that ran to the end, and many stopped ones that show in both directions where the peak is."""
    spec = spec_with(space=SPACE, optimizer={"startup_trials": 5})
    points = [suggestion.params for suggestion in create_optimizer(spec).ask(5)]
    points += [{"lr": 10**exponent, "dropout": 0.3} for exponent in (-3.5, -3, -2.5, -2, -1.5, -1.1)]
    points += [{"lr": 0.01, "dropout": dropout} for dropout in (0.0, 0.15, 0.45, 0.6, 0.75)]
    optimizer = create_optimizer(spec)
    for id, params in enumerate(points):
        optimizer.register(id, params)
        optimizer.report(id, 5, _bowl(params))
        if id < 2:
            optimizer.report(id, 9, _bowl(params))
            optimizer.tell(id, _bowl(params))
        else:
            optimizer.stop(id)
    (suggestion,) = optimizer.ask()
    assert suggestion.generator == "ax"
    assert _bowl(suggestion.params)["val_top1"] > 0.95


def test_ax_avoids_the_neighbourhood_of_failures() -> None:
    """Half of the space fails, and it is the half where the objective is rising."""
    spec = spec_with(space=SPACE, optimizer={"startup_trials": 5})
    optimizer = create_optimizer(spec)
    failures = 0
    for id in range(16):
        (suggestion,) = optimizer.ask()
        assert key_of(suggestion.params) not in optimizer.history().taken
        optimizer.register(id, suggestion)
        if float(suggestion.params["dropout"]) > 0.4:
            optimizer.fail(id, FailureKind.OOM)
            failures += id >= 8
        else:
            optimizer.tell(id, {"val_top1": float(suggestion.params["dropout"])})
    assert failures <= 4


def test_data_in_ax_are_finite_and_complete_and_have_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from ax.core.experiment import Experiment

    frames = []
    original = Experiment.attach_data

    def spy(experiment: Experiment, data: Any) -> None:
        frames.append(data.full_df)
        original(experiment, data)

    monkeypatch.setattr(Experiment, "attach_data", spy)
    spec = spec_with(space=SPACE, constraints=["epoch_seconds <= 6"])
    good = {"val_top1": 0.5, "epoch_seconds": 3.0}
    nan = float("nan")
    records = [
        record_of(
            id,
            TrialState.COMPLETED,
            metrics=metrics,
            params={"lr": 0.001 * (id + 1), "dropout": 0.1},
            values=[0.1] * id,
        )
        for id, metrics in enumerate(
            [good, {**good, "val_top1": nan}, {"val_top1": 0.4}, {**good, "epoch_seconds": math.inf}, good]
        )
    ]
    AxGenerator().propose(History(spec, records), 1)
    (frame,) = frames
    assert sorted(set(frame["trial_index"])) == [0, 4]
    assert sorted(frame["step"]) == [4, 4, 9, 9]
    assert len(frame) == 4
    assert frame["mean"].map(math.isfinite).all()


def _life(spec: StudySpec) -> list[list[TrialRecord]]:
    """Return a growing study: the records after each event."""
    points = [suggestion.params for suggestion in create_optimizer(spec).ask(5)]
    first = [record_of(id, TrialState.COMPLETED, params=points[id], metrics=_bowl(points[id])) for id in range(3)]
    running = [record_of(3, TrialState.RUNNING, params=points[3], values=[0.1])]
    stopped = [record_of(3, TrialState.STOPPED, params=points[3], values=[0.1, 0.2])]
    failed = [record_of(4, TrialState.FAILED, params=points[4], failure_kind=FailureKind.OOM)]
    return [first[:2], [*first, *running], [*first, *stopped], [*first, *stopped, *failed]]


@pytest.mark.usefixtures("short_search")
def test_the_ax_experiment_follows_the_study() -> None:
    spec = spec_with(space=SPACE)
    lived = AxGenerator()
    studies = []
    for records in _life(spec):
        history = History(spec, records)
        suggestions = lived.propose(history, 2)
        assert suggestions == AxGenerator().propose(history, 2)
        studies.append(lived.study(history))
        fresh = AxGenerator().study(history)
        for experiment in (studies[-1].experiment, fresh.experiment):
            assert [trial.status.name for trial in experiment.trials.values()] == [
                {"COMPLETED": "COMPLETED", "RUNNING": "RUNNING", "STOPPED": "EARLY_STOPPED", "FAILED": "FAILED"}[
                    record.state.name
                ]
                for record in records
            ]
        tables = [study.experiment.lookup_data().df[["trial_index", "mean", "step"]] for study in (studies[-1], fresh)]
        assert tables[0].equals(tables[1])
    assert len(set(map(id, studies))) == 1, "it was never built anew"


def test_a_suggestion_that_is_planned_again_is_abandoned_in_ax() -> None:
    spec = spec_with(space=SPACE)
    generator = AxGenerator()
    *told, waiting = _life(spec)[1]
    study = generator.study(History(spec, [*told, waiting]))
    elsewhere = replace(waiting, params={"lr": 0.02, "dropout": 0.5})
    assert generator.study(History(spec, told)) is study
    assert generator.study(History(spec, [*told, elsewhere])) is study
    states = [trial.status.name for trial in study.experiment.trials.values()]
    assert states == ["COMPLETED"] * 3 + ["ABANDONED", "RUNNING"]


def test_the_ax_experiment_is_built_anew_when_the_past_has_changed() -> None:
    spec = spec_with(space=SPACE)
    generator = AxGenerator()
    before, *_, after = _life(spec)
    old = generator.study(History(spec, after))
    assert generator.study(History(spec, before)) is not old
    other = History(spec, [replace(after[0], metrics={"val_top1": 0.123}), *after[1:]])
    assert set(generator.study(other).experiment.lookup_data().df["mean"]) >= {0.123}


def test_a_space_without_choice_falls_back() -> None:
    space = {"precision": {"type": "categorical", "choices": ["fp32"]}}
    spec = spec_with(space=space, optimizer={"startup_trials": 2})
    with pytest.raises(GeneratorError, match="no parameter of this space has more than one value"):
        AxGenerator().propose(History(spec, []), 1)
    optimizer = create_optimizer(spec)
    assert [suggestion.params for suggestion in optimizer.ask(2)] == [{"precision": "fp32"}]


def test_no_more_is_proposed_than_is_left_of_a_space() -> None:
    space = {
        "model": {"type": "categorical", "choices": ["a", "b"]},
        "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["a"]}},
    }
    spec = spec_with(space=space, optimizer={"startup_trials": 2})
    tried = _tried(spec, 2, lambda _: {"val_top1": 0.5})
    known = {key_of(record.params) for record in tried.history().records}
    (last,) = tried.ask(3)
    assert last.generator == "ax"
    assert key_of(last.params) not in known


def test_ax_takes_narrow_ranges() -> None:
    space = {"weight_decay": {"type": "float", "low": 1e-9, "high": 2e-9}, **SPACE}
    (suggestion,) = _tried(spec_with(space=space, optimizer={"startup_trials": 2}), 3, _bowl).ask()
    assert suggestion.generator == "ax"


@given(raw=spaces(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_ax_space_there_and_back(raw: dict[str, Any], data: st.DataObject) -> None:
    spec = spec_with(space=raw)
    point = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=len(raw), max_size=len(raw)))
    params = decode(spec, point)
    space = AxSpace(spec)
    back = space.decode(space.encode(params))
    assert {key: value for key, value in back.items() if not isinstance(value, float)}.items() <= params.items()
    assert {
        key: pytest.approx(value, rel=1e-9, abs=1e-15) for key, value in back.items() if isinstance(value, float)
    } == {key: value for key, value in params.items() if isinstance(value, float)}
    assert set(space.encode(params)) == {parameter.name for parameter in space.parameters}


def test_values_that_optuna_would_list_in_more_memory_than_there_is_are_left_to_the_fallback() -> None:
    # No study gets such a step any more, but one may have it.
    spec = spec_with(space=SPACE, optimizer={"name": "gp", "startup_trials": 2}, budget={"trials": 30})
    fine = {**dump_spec(spec), "space": {"dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 1e-12}}}
    optimizer = create_optimizer(stored_spec(fine))
    for id in range(3):
        (suggestion,) = optimizer.ask()
        optimizer.register(id, suggestion)
        optimizer.tell(id, {"val_top1": 0.1 * id})
    assert suggestion.generator == "sobol (instead of gp)"
