"""The simple rules decide as Optuna's pruners of the same names, report by report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, PatientPruner, PercentilePruner, ThresholdPruner
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from hpo.spec.tasks.task import Direction
from hpo.stopping.decide import decide
from hpo.trial import Decision, TrialRecord, TrialState

from ..records import record_of, spec_with

EPOCHS = 8
Reported = dict[int, float]
"""Step to what was reported of the objective there; other steps were lost."""

EIGHTHS = [eighth / 8 for eighth in range(9)]  # few values, so that ties are common
VALUES = st.sampled_from([*EIGHTHS, *EIGHTHS, None, math.nan, math.inf, -math.inf])


def _curves(least: int, most: int) -> st.SearchStrategy[Reported]:
    return st.lists(VALUES, min_size=least, max_size=most).map(
        lambda values: {step: value for step, value in enumerate(values, start=1) if value is not None}
    )


RIVALS = st.lists(
    st.tuples(st.sampled_from([TrialState.COMPLETED] * 3 + [TrialState.STOPPED]), _curves(EPOCHS - 2, EPOCHS)),
    max_size=6,
)


@st.composite
def rules(draw: st.DrawFn, name: str) -> tuple[dict[str, Any], BasePruner]:
    """Return a rule of a spec and the Optuna pruner that does the same."""
    least, startup = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    shared = {"min_epochs": least, "startup_trials": startup}
    if name == "median":
        return {"name": name, **shared}, MedianPruner(startup, least)
    if name == "percentile":
        share = draw(st.floats(1, 99))
        return {"name": name, "percentile": share, **shared}, PercentilePruner(share, startup, least)
    if name == "threshold":
        lower, upper = draw(
            st.sampled_from([(None, 0.75), (0.25, None), (0.25, 0.75), (0.0, 1.0)]),
        )
        bounds = {key: bound for key, bound in (("lower", lower), ("upper", upper)) if bound is not None}
        return {"name": name, **bounds, **shared}, ThresholdPruner(lower, upper, least)
    patience = draw(st.integers(1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return {"name": name, "patience": patience, **shared}, PatientPruner(None, patience)


@pytest.fixture(autouse=True, scope="module")
def _quiet_optuna() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def _finite(reported: Reported) -> Reported:
    return {step: value for step, value in reported.items() if math.isfinite(value)}


def _frozen(state: TrialState, reported: Reported) -> FrozenTrial:
    """Return the trial as a person would have run it with Optuna: a result that is not finite is a failure."""
    result = reported[max(reported)] if reported else math.nan
    if state is TrialState.RUNNING:
        return create_trial(state=OptunaState.RUNNING, intermediate_values=_finite(reported))
    if not math.isfinite(result):
        return create_trial(state=OptunaState.FAIL, intermediate_values=_finite(reported))
    states = {TrialState.COMPLETED: OptunaState.COMPLETE, TrialState.STOPPED: OptunaState.PRUNED}
    return create_trial(state=states[state], value=result, intermediate_values=_finite(reported))


def _record(number: int, state: TrialState, reported: Reported) -> TrialRecord:
    result = reported[max(reported)] if reported else math.nan
    return record_of(
        number,
        state,
        curve={step: {"val_top1": value} for step, value in reported.items()},
        metrics=None if state is TrialState.RUNNING else {"val_top1": result},
    )


@pytest.mark.parametrize("name", ["median", "percentile", "threshold", "patient"])
@given(data=st.data(), direction=st.sampled_from(["maximize", "minimize"]), own=_curves(2, EPOCHS), rivals=RIVALS)
@settings(max_examples=250, deadline=None)
def test_decides_as_optuna(
    name: str, data: st.DataObject, direction: Direction, own: Reported, rivals: list[tuple[TrialState, Reported]]
) -> None:
    section, pruner = data.draw(rules(name))
    study = optuna.create_study(direction=direction)
    for state, reported in rivals:
        study.add_trial(_frozen(state, reported))
    is_asked = (
        bool(own)
        and math.isfinite(own[max(own)])
        and section["min_epochs"] <= max(own) < EPOCHS
        and sum(state is TrialState.COMPLETED for state, _ in rivals) >= section["startup_trials"]
    )
    expected = is_asked and pruner.prune(study, _frozen(TrialState.RUNNING, own))

    # The best trial of a study is never stopped; with another one far ahead, the rule alone decides.
    ahead = _record(99, TrialState.RUNNING, {1: 9.0 if direction == "maximize" else -9.0})
    spec = spec_with(epochs=EPOCHS, objectives=[{"metric": "val_top1", "direction": direction}], early_stopping=section)
    records = [_record(number, *rival) for number, rival in enumerate(rivals, start=1)]
    decision = decide(spec, _record(0, TrialState.RUNNING, own), [*records, ahead])
    assert decision is (Decision.STOP if expected else Decision.CONTINUE)
