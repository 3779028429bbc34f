"""What `hpo.tune` sees in a function before it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import hpo
from hpo.functions.portable import _source
from hpo.functions.spaces import MODEL_TRIALS, optimizer_of
from hpo.functions.tune import _asks_for_epochs


def _in_epochs(trial: hpo.Trial, scale: float = 1.0) -> None:
    for epoch in trial.epochs():
        trial.report(score=scale * epoch)


class _InEpochs:
    def __call__(self, trial: hpo.Trial) -> None:
        _in_epochs(trial)
        list(trial.epochs())

    def train(self, trial: hpo.Trial) -> None:
        list(trial.epochs())


@pytest.mark.parametrize(
    "function",
    [_in_epochs, functools.partial(_in_epochs, scale=2.0), _InEpochs(), _InEpochs().train],
    ids=["function", "partial", "object", "method"],
)
def test_functions_in_epochs_are_known_in_every_form(function: Callable[..., Any]) -> None:
    assert _asks_for_epochs(function)


def test_the_optimizer_for_very_many_trials_is_the_cheap_one_unless_somebody_says_which() -> None:
    assert optimizer_of({}, None) == optimizer_of({}, MODEL_TRIALS) == {}
    assert optimizer_of({"seed": 3}, MODEL_TRIALS + 1) == {"name": "tpe", "seed": 3}
    assert optimizer_of({"name": "ax"}, MODEL_TRIALS + 1) == {"name": "ax"}


@pytest.mark.parametrize(("section", "trials"), [("tpe", 10), ("tpe", MODEL_TRIALS + 1), (None, 10), ({}, "2000")])
def test_an_optimizer_that_is_no_section_is_left_to_whoever_reads_the_spec(section: object, trials: object) -> None:
    assert optimizer_of(section, trials) == section


@pytest.mark.parametrize("function", [lambda trial: 1.0, functools.partial(max, 1), dict], ids=["a", "b", "c"])
def test_others_report_once(function: Callable[..., Any]) -> None:
    assert not _asks_for_epochs(function)


def _scaled(value: float) -> float:
    return _Twice.of(value)


class _Twice:
    @staticmethod
    def of(value: float) -> float:
        return 2 * value


def _unrelated(value: float) -> float:
    return value


def _with_helpers(trial: hpo.Trial) -> float:
    return [_scaled(number) for number in range(3)][-1]


def test_the_source_of_a_function_includes_what_it_refers_to() -> None:
    source = (_source(_with_helpers) or b"").decode()
    for part in ("def _with_helpers", "def _scaled", "return 2 * value"):
        assert part in source
    assert "_unrelated" not in source
