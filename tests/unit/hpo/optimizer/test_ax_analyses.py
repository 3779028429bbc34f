"""Ax's own analyses on a study that is running."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hpo.optimizer import create_optimizer
from hpo.optimizer.ax_analyses import analyses
from hpo.optimizer.generator import GeneratorError
from hpo.optimizer.history import History
from hpo.trial import FailureKind, Params

from ..records import spec_with

SPEC = spec_with(
    space={
        "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        "model": {"type": "categorical", "choices": ["r2plus1d_18", "slowfast_r18"]},
        "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r18"]}},
    },
    constraints=["epoch_seconds <= 9"],
    optimizer={"startup_trials": 5},
)


def _metrics(params: Params, epoch: int) -> dict[str, float]:
    lr, dropout = float(params["lr"]), float(params["dropout"])
    top = 1 - ((math.log10(lr) + 2) / 3) ** 2 - (dropout - 0.3) ** 2 - 0.1 * (params["model"] == "r2plus1d_18")
    return {"val_top1": top * (1 - 0.5**epoch), "epoch_seconds": 10 - 8 * dropout}


@pytest.fixture(scope="module")
def live() -> History:
    """15 trials of the start-up: every third stopped at 3 epochs of 9, one out of memory, the last one running."""
    optimizer = create_optimizer(SPEC)
    for id, suggestion in enumerate(optimizer.quick(15)):
        optimizer.register(id, suggestion)
        if id == 7:
            optimizer.fail(id, FailureKind.OOM)
            continue
        epochs = 3 if id % 3 == 1 or id == 14 else 9
        for epoch in range(1, epochs + 1):
            optimizer.report(id, epoch, _metrics(suggestion.params, epoch))
        if epochs == 9:
            optimizer.tell(id, _metrics(suggestion.params, 9))
        elif id < 14:
            optimizer.stop(id)
    return optimizer.history()


@pytest.fixture(scope="module")
def cards(live: History) -> dict[str, Any]:
    return dict(analyses(live))


def test_every_analysis_that_applies_is_there(cards: dict[str, Any]) -> None:
    assert set(cards) == {
        "summary",
        "best trials",
        "progress",
        "parallel coordinates",
        "cross-validation",
        "metrics are predictable",
        "the start-up is surpassed",
        "constraints can be kept",
        "feasibility",
        "epoch_seconds over val_top1",
        *(f"{kind} {metric}" for kind in ("effects", "sensitivity", "surfaces") for metric in _metrics_named()),
    }


def _metrics_named() -> tuple[str, str]:
    return "val_top1", "epoch_seconds"


def test_sensitivities_are_by_parameter_and_find_the_one_that_counts(cards: dict[str, Any]) -> None:
    table = cards["sensitivity epoch_seconds"].df.set_index("parameter_name")["sensitivity"]
    assert set(table.index) == set(SPEC.space)
    assert table["dropout"] < 0, "more dropout takes less time"
    assert table.abs().idxmax() == "dropout"
    assert cards["sensitivity val_top1"].df.set_index("parameter_name")["sensitivity"]["model"] != 0


def test_cross_validation_compares_final_values_in_the_unit_of_the_metric(cards: dict[str, Any]) -> None:
    (table,) = [card.df for card in cards["cross-validation"].children if "val_top1" in card.title]
    # All trials but the failed one, which has no value of its own.
    assert len(table) == 14
    assert table["observed"].between(-0.5, 1.05).all()
    assert (table["predicted"] - table["observed"]).abs().median() < 0.1


def test_effects_show_the_predicted_ends_of_stopped_trials(cards: dict[str, Any], live: History) -> None:
    table = cards["effects val_top1"].df.set_index("trial_index")
    stopped = table[table["trial_status"] == "EARLY_STOPPED"]
    assert set(stopped.index) == {1, 4, 10, 13}
    for index, mean in stopped["val_top1_mean"].items():
        at_three = _metrics(live.records[index].params, 3)["val_top1"]
        assert mean > at_three
        assert mean == pytest.approx(_metrics(live.records[index].params, 9)["val_top1"], abs=0.15)


def test_surfaces_have_the_parameters_own_values(cards: dict[str, Any]) -> None:
    names = {card.name: card for card in cards["surfaces val_top1"].children}
    slices = names["TopSurfaceAnalysisSlicePlots"].children
    assert len(slices) == 3
    (lr,) = [card.df for card in slices if "lr" in card.df]
    assert lr["lr"].min() >= 1e-4
    assert lr["lr"].max() <= 0.1
    assert lr["lr"].max() > 50 * lr["lr"].min()


def test_without_an_outcome_there_is_nothing_to_analyse() -> None:
    with pytest.raises(GeneratorError, match="no trial has an outcome yet"):
        analyses(History(SPEC, []))
