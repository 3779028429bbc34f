"""The value of a trial as a mean over its last epochs, for all who read it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import SpecError
from hpo.optimizer import create_optimizer
from hpo.results.export import build_export, dump_export
from hpo.results.outcome import final_metrics, means, settled, trailing
from hpo.spec import dump_spec, stored_spec
from hpo.stopping.decide import decide
from hpo.trial import Decision, TrialState

from ..records import PARAMS, record_of, spec_with

LAST_3 = {"val_top1": 3}
OBJECTIVE = {"metric": "val_top1", "last_epochs": 3}


@pytest.mark.parametrize("state", [TrialState.COMPLETED, TrialState.STOPPED])
def test_an_ended_trial_has_the_mean_over_its_last_epochs(state: TrialState) -> None:
    trial = record_of(1, state, values=[0.0, 0.1, 0.2, 0.6, 0.4], metrics={"val_top1": 0.4, "val_loss": 2.0})
    assert settled(trial, LAST_3).metrics == {"val_top1": pytest.approx(0.4), "val_loss": 2.0}
    assert settled(trial, {"val_top1": 9}).metrics == {"val_top1": pytest.approx(0.26), "val_loss": 2.0}
    assert settled(settled(trial, LAST_3), LAST_3) == settled(trial, LAST_3)
    without = record_of(1, state, values=[0.2, 0.6, 0.4])
    assert final_metrics(settled(without, LAST_3)) == {"val_top1": pytest.approx(0.4)}


def test_a_trial_that_was_stopped_between_validations_has_the_mean_with_the_one_at_its_end() -> None:
    curve: dict[int, dict[str, float]] = {
        2: {"val_top1": 0.2, "train_loss": 1.0},
        3: {"train_loss": 0.9},
        4: {"val_top1": 0.4, "train_loss": 0.8},
        5: {"train_loss": 0.7},
    }
    trial = replace(
        record_of(1, TrialState.STOPPED, metrics={"val_top1": 0.6, "train_loss": 0.7}), curve=curve, epochs_done=5
    )
    assert settled(trial, LAST_3).metrics == {"val_top1": pytest.approx(0.5), "train_loss": 0.7}


def test_other_trials_stay_as_they_are() -> None:
    for trial in (record_of(1, values=[0.1, 0.2]), record_of(1, TrialState.COMPLETED, metrics={"val_top1": 0.4})):
        assert settled(trial, LAST_3) == trial
    ended = record_of(1, TrialState.COMPLETED, values=[0.1, 0.2], metrics={"val_top1": 0.2})
    assert settled(ended, {}) is ended


def test_epochs_without_a_finite_value_are_left_out_but_not_the_last_one() -> None:
    def curve(*values: float) -> dict[int, dict[str, float]]:
        return {step: {"val_top1": value} for step, value in enumerate(values, start=1)}

    assert means(curve(0.9, 0.2, math.nan, 0.4), LAST_3) == {"val_top1": pytest.approx(0.3)}
    assert means(curve(0.9, 0.2, math.nan), LAST_3) == {}
    assert means(curve(0.9, 0.2), {"val_loss": 3}) == {}


def test_a_trailing_curve_has_at_each_epoch_the_mean_up_to_it() -> None:
    curve = trailing(record_of(1, values=[0.3, 0.5, 0.1, 0.6]), LAST_3).curve
    assert [row["val_top1"] for row in curve.values()] == pytest.approx([0.3, 0.4, 0.3, 0.4])


@given(
    st.lists(st.sampled_from([0.1, 0.25, 0.7, math.nan]), min_size=1, max_size=9),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_each_value_of_a_trailing_curve_is_the_mean_of_the_curve_that_ends_there(
    values: list[float], count: int, stride: int
) -> None:
    curve = {stride * step: {"val_top1": value, "epoch": step} for step, value in enumerate(values, 1)}
    record = replace(record_of(1), curve=curve)
    found = trailing(record, {"val_top1": count}).curve
    for step, row in found.items():
        until = {at: shown for at, shown in record.curve.items() if at <= step}
        expected = {**record.curve[step], **means(until, {"val_top1": count})}
        assert row == pytest.approx(expected, nan_ok=True)


def test_a_stopping_rule_reads_means_too() -> None:
    rule = {"name": "threshold", "lower": 0.35, "startup_trials": 0}
    trial, better = record_of(1, values=[0.9, 0.6, 0.2]), record_of(2, values=[1.0, 1.0, 1.0])
    assert decide(spec_with(early_stopping=rule), trial, [better]) is Decision.STOP
    assert decide(spec_with(early_stopping=rule, objectives=[OBJECTIVE]), trial, [better]) is Decision.CONTINUE


def test_the_optimizer_keeps_means() -> None:
    for objective, best in (({"metric": "val_top1"}, 2), (OBJECTIVE, 1)):
        optimizer = create_optimizer(spec_with(objectives=[objective], epochs=3, optimizer={"name": "sobol"}))
        for id_, values in ((1, [0.5, 0.6, 0.5]), (2, [0.0, 0.1, 0.9])):
            optimizer.register(id_, {**PARAMS, "lr": 0.01 * id_})
            for step, value in enumerate(values[:-1], start=1):
                optimizer.report(id_, step, {"val_top1": value})
            optimizer.tell(id_, {"val_top1": values[-1]})
        finals = {record.id: final_metrics(record)["val_top1"] for record in optimizer.history().records}
        assert max(finals, key=lambda id_: finals[id_]) == best


def test_an_export_says_over_how_many_epochs() -> None:
    for objective, count in (({"metric": "val_top1"}, {}), (OBJECTIVE, {"val_top1": 3})):
        spec = spec_with(objectives=[objective])
        trial = settled(record_of(1, TrialState.COMPLETED, values=[0.2, 0.6, 0.4]), spec.last_epochs)
        export = build_export(study="s", spec=spec, trial=trial, dataset_version=None, environment={}, checkpoint=None)
        assert export.last_epochs == count
        assert ("last_epochs" in dump_export(export, form="yaml")) == bool(count)


def test_a_spec_is_written_as_before_unless_it_asks_for_means() -> None:
    plain, asked = spec_with(), spec_with(objectives=[OBJECTIVE])
    assert "last_epochs" not in dump_spec(plain)["objectives"][0]
    assert dump_spec(asked)["objectives"][0]["last_epochs"] == 3
    assert stored_spec(dump_spec(asked)) == asked
    with pytest.raises(SpecError, match=r"objectives\[0\].last_epochs: 10 is more than task.epochs \(9\)"):
        spec_with(objectives=[{**OBJECTIVE, "last_epochs": 10}])
