"""What a function is given: reports, epochs, and the end that the study wants."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from hpo.functions.trial import FunctionError, NotFiniteError, Plan, Request, Resumed, Trial, TrialInterrupted


class PlayedService:
    """A study that asks for something after a number of reports."""

    def __init__(self, request: Request | None = None, *, after: int = 99, resumed: Resumed | None = None) -> None:
        self._request = request
        self._after = after
        self._resumed = resumed
        self.reports: list[tuple[int, dict[str, float], object]] = []

    def request(self) -> Request | None:
        return self._request if len(self.reports) >= self._after else None

    def resume(self) -> Resumed | None:
        return self._resumed

    def report(self, step: int, metrics: Mapping[str, float], checkpoint: object) -> None:
        self.reports.append((step, dict(metrics), checkpoint))


def _trial(service: PlayedService, *, epochs: int = 4, metrics: tuple[str, ...] = ("accuracy",)) -> Trial:
    plan = Plan(study="s", number=3, attempt=1, seed=7, params={"width": 2}, metrics=metrics, epochs=epochs)
    return Trial(plan, service)


def test_each_epoch_is_reported_under_its_number() -> None:
    service = PlayedService()
    trial = _trial(service)
    for epoch in trial.epochs():
        trial.report(accuracy=epoch / 4, checkpoint=b"state")
    assert [step for step, _, _ in service.reports] == [1, 2, 3, 4]
    assert trial.returned(None) == {"accuracy": 1.0}


def test_parameters_can_be_written_as_json_and_changed_for_oneself() -> None:
    plan = Plan(study="s", number=3, attempt=1, seed=7, params={"width": 2}, metrics=("accuracy",), epochs=1)
    trial = Trial(plan, PlayedService())
    assert json.dumps(trial.params) == '{"width": 2}'
    trial.params["width"] = 3
    assert (trial.params, plan.params) == ({"width": 3}, {"width": 2})


def test_reports_without_epochs_are_counted() -> None:
    service = PlayedService()
    trial = _trial(service)
    for value in (1, 2):
        trial.report(accuracy=value)
    assert [step for step, _, _ in service.reports] == [1, 2]


def test_a_resumed_trial_goes_on_after_its_last_checkpoint() -> None:
    service = PlayedService(resumed=Resumed(epoch=2, checkpoint={"w": 1}))
    loaded: list[object] = []
    trial = _trial(service)
    assert list(trial.epochs(resume=loaded.append)) == [3, 4]
    assert loaded == [{"w": 1}]


def test_without_resume_it_begins_at_the_beginning() -> None:
    assert list(_trial(PlayedService(resumed=Resumed(epoch=2, checkpoint=None))).epochs()) == [1, 2, 3, 4]


def test_a_stop_ends_the_epochs_and_what_follows_them_runs() -> None:
    service = PlayedService("stop", after=2)
    trial, done = _trial(service), []
    for epoch in trial.epochs():
        trial.report(accuracy=0)
        done.append(epoch)
    assert done == [1, 2]
    assert trial.heard == "stop"


@pytest.mark.parametrize("request_", ["pause", "drain"])
def test_what_continues_later_does_not_run_what_follows_its_epochs(request_: Request) -> None:
    service = PlayedService(request_, after=2)
    trial = _trial(service)
    epochs = trial.epochs()
    for _ in range(2):
        next(epochs)
        trial.report(accuracy=0)
    with pytest.raises(TrialInterrupted):
        next(epochs)
    assert len(service.reports) == 2


def test_a_stop_after_the_last_epoch_changes_nothing() -> None:
    trial = _trial(PlayedService("pause", after=4))
    for _ in trial.epochs():
        trial.report(accuracy=0)
    assert trial.heard is None


def test_a_function_that_ignores_a_stop_ends_at_its_next_report() -> None:
    trial = _trial(PlayedService("stop", after=1))
    trial.report(accuracy=0)
    with pytest.raises(TrialInterrupted):
        trial.report(accuracy=0)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"acuracy": 1}, "does not know the metric 'acuracy'; it knows accuracy"),
        ({"accuracy": "high"}, "accuracy must be a number, but it is str 'high'"),
        ({}, "without a metric"),
    ],
)
def test_a_report_that_cannot_be_one_is_refused(metrics: dict[str, Any], words: str) -> None:
    with pytest.raises(FunctionError, match=words):
        _trial(PlayedService()).report(**metrics)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e101])
def test_a_value_that_is_not_finite_has_diverged(value: float) -> None:
    with pytest.raises(NotFiniteError, match="accuracy is"):
        _trial(PlayedService()).report(accuracy=value)


def test_an_epoch_has_one_report_and_a_trial_as_many_as_planned() -> None:
    trial = _trial(PlayedService(), epochs=2)
    for _ in trial.epochs():
        trial.report(accuracy=0)
        with pytest.raises(FunctionError, match="called twice in epoch"):
            trial.report(accuracy=0)
    short = _trial(PlayedService(), epochs=1)
    short.report(accuracy=0)
    with pytest.raises(FunctionError, match=r"this is report 2, but trials of the study have 1 \(task.epochs\)"):
        short.report(accuracy=0)
    with pytest.raises(FunctionError, match="iterate over it once"):
        short.epochs()


def test_what_is_returned_are_metrics_too() -> None:
    assert _trial(PlayedService()).returned(0.5) == {"accuracy": 0.5}
    both = ("accuracy", "seconds")
    assert _trial(PlayedService(), metrics=both).returned({"accuracy": 1, "seconds": 2}) == {
        "accuracy": 1,
        "seconds": 2,
    }
    with pytest.raises(FunctionError, match="return a dict with accuracy, seconds"):
        _trial(PlayedService(), metrics=both).returned(0.5)
    with pytest.raises(FunctionError, match="ended without seconds"):
        _trial(PlayedService(), metrics=both).returned({"accuracy": 1})
