"""The optimizer's own behaviour, whatever proposes: start-up, bookkeeping, replay, fallback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpo.errors import NotFoundError
from hpo.optimizer import GeneratorError, Optimizer, create_optimizer, startup_trials
from hpo.optimizer.history import History
from hpo.trial import Decision, FailureKind, Params, Suggestion, TrialState

from ..records import PARAMS, record_of, spec_with


class Echo:
    """A generator that gives the answers it was made with, and keeps the histories it was asked with."""

    name = "echo"

    def __init__(self, *answers: Params | Exception) -> None:
        self.answers = list(answers)
        self.histories: list[History] = []

    def propose(self, history: History, n: int) -> list[Suggestion]:
        self.histories.append(history)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [Suggestion(params=answer, generator=self.name)]


def _optimizer(generator: Echo, **sections: object) -> Optimizer:
    """Return an optimizer past its start-up."""
    optimizer = Optimizer(spec_with(optimizer={"startup_trials": 2}, **sections), lambda: generator)
    for number in range(2):
        optimizer.register(number, {**PARAMS, "lr": 0.01 * (number + 1)})
        optimizer.tell(number, {"val_top1": 0.5})
    return optimizer


@pytest.mark.parametrize(
    "module", ["hpo.optimizer", "hpo.stopping.decide", "hpo.optuna_view.storage", "hpo.optimizer.sobol"]
)
def test_importing_needs_neither_torch_nor_ax(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'ax', 'botorch', 'optuna_dashboard'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_start_up_is_quasi_random_then_the_generator_is_asked() -> None:
    generator = Echo(PARAMS)
    optimizer = Optimizer(spec_with(optimizer={"startup_trials": 3}), lambda: generator)
    for number in range(3):
        (suggestion,) = optimizer.ask()
        assert suggestion.generator == "sobol"
        assert not optimizer.uses_model
        optimizer.register(number, suggestion)
        optimizer.tell(number, {"val_top1": 0.1})
    assert optimizer.uses_model
    assert [suggestion.generator for suggestion in optimizer.ask()] == ["echo"]


def test_start_up_lasts_until_enough_trials_are_measured() -> None:
    optimizer = Optimizer(spec_with(optimizer={"startup_trials": 4}), Echo)
    for number, suggestion in enumerate(optimizer.ask(6)):
        optimizer.register(number, suggestion)
    assert [suggestion.generator for suggestion in optimizer.ask(2)] == ["sobol"] * 2
    for number in range(4):
        optimizer.fail(number, FailureKind.ERROR)
    optimizer.tell(4, {"val_top1": 0.1})
    assert not optimizer.uses_model  # one result is no start


def test_stopped_trials_end_the_start_up_too() -> None:
    """With Ax's own start-up, a study whose first trials were all stopped early never leaves it."""
    optimizer = Optimizer(spec_with(optimizer={"startup_trials": 4}), Echo)
    for number, suggestion in enumerate(optimizer.ask(4)):
        optimizer.register(number, suggestion)
        optimizer.report(number, 1, {"val_top1": 0.1})
        optimizer.stop(number)
    assert optimizer.uses_model


@pytest.mark.parametrize(
    ("trials", "parameters", "expected"), [(12, 4, 4), (60, 6, 5), (60, 1, 5), (6, 6, 3), (None, 13, 7)]
)
def test_automatic_start_up_leaves_a_small_study_most_of_its_trials(
    trials: int | None, parameters: int, expected: int
) -> None:
    names = [f"model.x{place}" for place in range(parameters)]
    space = {name: {"type": "float", "low": 0.1, "high": 0.5} for name in names}
    space["precision"] = {"type": "categorical", "choices": ["fp32"]}  # does not vary, does not count
    spec = spec_with(space=space, budget={"trials": trials, "wall_hours": 1})
    assert startup_trials(spec) == expected


def test_the_generator_sees_pending_proposals() -> None:
    generator = Echo({**PARAMS, "lr": 0.2}, {**PARAMS, "lr": 0.25})
    suggestions = _optimizer(generator).ask(2)
    assert suggestions[0].params == generator.histories[1].records[-1].params
    assert generator.histories[1].records[-1].state is TrialState.SUGGESTED


@pytest.mark.parametrize("answer", [GeneratorError("no"), {"lr": 5.0, "weight_decay": 1e-4, "model": "r2plus1d_18"}])
def test_a_generator_that_fails_is_replaced_by_sobol(answer: Exception | Params) -> None:
    optimizer = _optimizer(Echo(answer))
    (suggestion,) = optimizer.ask()
    assert suggestion.generator == "sobol (instead of ax)"
    optimizer.spec.check_params(suggestion.params)


def test_unknown_trials_are_named() -> None:
    optimizer = create_optimizer(spec_with())
    for call in (
        optimizer.stop,
        optimizer.forget,
        lambda id: optimizer.tell(id, {}),
        lambda id: optimizer.fail(id, FailureKind.OOM),
    ):
        with pytest.raises(NotFoundError, match="trial 7"):
            call(7)


def test_configurations_outside_the_space_are_refused() -> None:
    with pytest.raises(ValueError, match="lr"):
        create_optimizer(spec_with()).register(0, {**PARAMS, "lr": 7.0})


def test_report_decides_about_early_stopping() -> None:
    optimizer = create_optimizer(spec_with(early_stopping={"name": "median", "startup_trials": 1, "min_epochs": 2}))
    for id in (0, 1):
        optimizer.register(id, {**PARAMS, "lr": 0.01 * (id + 1)})
    for step in range(1, 10):
        assert optimizer.report(0, step, {"val_top1": 0.5}) is Decision.CONTINUE
    optimizer.tell(0, {"val_top1": 0.5})
    assert optimizer.report(1, 1, {"val_top1": 0.1}) is Decision.CONTINUE
    assert optimizer.report(1, 2, {"val_top1": 0.1}) is Decision.STOP


def test_failed_and_withdrawn_configurations() -> None:
    optimizer = create_optimizer(spec_with(optimizer={"name": "sobol"}))
    first, second, third = optimizer.ask(3)
    for id, suggestion in enumerate((first, second)):
        optimizer.register(id, suggestion)
    optimizer.fail(0, FailureKind.OOM)
    optimizer.forget(1)
    assert optimizer.ask(2) == [second, third]  # the failed one is not proposed again, the withdrawn one is


def test_a_replayed_optimizer_equals_the_original() -> None:
    records = [
        record_of(5, TrialState.COMPLETED, values=[0.3, 0.4], metrics={"val_top1": 0.4}),
        record_of(6, TrialState.STOPPED, values=[0.1], params={**PARAMS, "lr": 0.2}),
        record_of(7, TrialState.FAILED, failure_kind=FailureKind.OOM, params={**PARAMS, "lr": 0.25}),
        record_of(8, TrialState.WITHDRAWN, params={**PARAMS, "lr": 0.3}),
        record_of(9, TrialState.RUNNING, values=[0.2], params={**PARAMS, "lr": 0.02}),
    ]
    replayed, lived = create_optimizer(spec_with()), create_optimizer(spec_with())
    replayed.replay(reversed(records))
    for record in records:
        lived.register(record.id, record.params)
        for step, metrics in record.curve.items():
            lived.report(record.id, step, metrics)
    lived.tell(5, {"val_top1": 0.4})
    lived.stop(6)
    lived.fail(7, FailureKind.OOM)
    lived.forget(8)
    assert replayed.history().observations == lived.history().observations
    assert replayed.history().taken == lived.history().taken


# ---------------------------------------------------------------- how trials count


def test_how_trials_count_for_a_model() -> None:
    spec = spec_with(constraints=["epoch_seconds <= 10"])
    full = {"val_top1": 0.4, "epoch_seconds": 8.0}
    records = [
        record_of(0, TrialState.COMPLETED, values=[0.1, 0.2], metrics=full),
        record_of(1, TrialState.COMPLETED, metrics={"val_top1": 0.3, "epoch_seconds": 12.0}),
        record_of(2, TrialState.COMPLETED, metrics={"val_top1": 0.9}),  # a constraint was never measured
        record_of(3, TrialState.COMPLETED, metrics={"val_top1": float("nan"), "epoch_seconds": 1.0}),
        record_of(4, TrialState.FAILED, failure_kind=FailureKind.OOM),
        record_of(5, TrialState.FAILED, failure_kind=FailureKind.LOST),
        record_of(6, TrialState.RUNNING),
        record_of(7, TrialState.RUNNING, values=[0.5]),  # without the constraint it is pending, no more
        record_of(8, TrialState.STOPPED),
    ]
    history = History(spec, records)
    seen = [(s.state, s.step, dict(s.metrics), s.imputed) for s in history.observations]
    worst = {"val_top1": 0.3, "epoch_seconds": 12.0}
    assert seen == [
        (TrialState.COMPLETED, 2, full, False),
        (TrialState.COMPLETED, 9, worst, False),
        (TrialState.COMPLETED, 9, worst, True),
        (TrialState.RUNNING, 0, {}, False),
        (TrialState.RUNNING, 1, {}, False),
    ]
    assert (history.measured, history.planned) == (2, 7)


def test_a_final_value_that_is_not_finite_counts_as_diverged() -> None:
    optimizer = create_optimizer(spec_with())
    optimizer.register(0, PARAMS)
    optimizer.tell(0, {"val_top1": float("nan")})
    (record,) = optimizer.history().records
    assert (record.state, record.failure_kind, record.metrics) == (TrialState.FAILED, FailureKind.DIVERGED, None)


def test_a_paused_trial_is_promoted_once_the_rule_allows_it() -> None:
    rule = {"name": "asha", "reduction": 2, "startup_trials": 0, "pause": True}
    optimizer = Optimizer(spec_with(early_stopping=rule), Echo)
    for number, suggestion in enumerate(optimizer.ask(4)):
        optimizer.register(number, suggestion)
    assert optimizer.report(0, 1, {"val_top1": 0.5}) is Decision.CONTINUE
    for number, value in ((1, 0.4), (2, 0.1)):
        assert optimizer.report(number, 1, {"val_top1": value}) is Decision.PAUSE
        optimizer.pause(number)
        assert optimizer.promotions() == []
    assert optimizer.report(3, 1, {"val_top1": 0.2}) is Decision.PAUSE
    optimizer.pause(3)
    assert optimizer.promotions() == [1]


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_the_best_trial_is_the_one_whose_curve_ends_best(direction: str, sign: int) -> None:
    """The last epoch of trial 1 was lucky, and trial 2, which is far ahead, was stopped early."""
    spec = spec_with(objectives=[{"metric": "val_top1", "direction": direction}])
    optimizer, epochs = Optimizer(spec, Echo), spec.task.epochs
    assert optimizer.best() is None
    best = []
    for number, level in enumerate((0.6, 0.5, 0.8, 0.4)):
        optimizer.register(number, {**PARAMS, "lr": 0.01 * (number + 1)})
        values = [sign * (level + 0.02 * (-1) ** epoch) for epoch in range(epochs)]
        values[-1] = sign * (0.63 if number == 1 else level)
        for step, value in enumerate(values[:3] if number == 2 else values, 1):
            optimizer.report(number, step, {"val_top1": value})
        if number == 2:
            optimizer.stop(number)
        else:
            optimizer.tell(number, {"val_top1": values[-1]})
        best.append(optimizer.best())
    assert best == [0, 0, 2, 2]


def test_without_curves_the_best_trial_is_that_of_the_best_result() -> None:
    optimizer = _optimizer(Echo())
    optimizer.register(2, {**PARAMS, "lr": 0.05})
    optimizer.tell(2, {"val_top1": 0.6})
    assert optimizer.best() == 2
