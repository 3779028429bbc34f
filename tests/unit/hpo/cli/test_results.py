"""The leaderboard that `hpo trials` and the demo print."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from hpo.cli.results import front_of, leaderboard
from hpo.cli.studies import hours
from hpo.spec import dump_spec, parse_spec

SPEC: dict[str, Any] = {
    "name": "demo",
    "objectives": [{"metric": "val_top1"}],
    "task": {"dataset": {"root": "/data/ucf101"}, "epochs": 4},
    "space": {"lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True}},
    "budget": {"trials": 9},
}


def _trial(number: int, metrics: dict[str, float] | None, state: str = "completed", **fields: Any) -> dict[str, Any]:
    last = metrics if state == "running" else None
    common = {"epochs_done": 4, "params": {"lr": 0.01}, "generator": "ax", "last_metrics": last}
    return {"number": number, "state": state, "metrics": None if last else metrics, **common, **fields}


def _rows(trials: list[dict[str, Any]], **sections: Any) -> list[list[str]]:
    table = leaderboard(trials, dump_spec(parse_spec({**SPEC, **sections})))
    console = Console(width=300)
    with console.capture() as capture:
        console.print(table)
    lines = [line for line in capture.get().splitlines() if line[:1] in "┃│"]
    return [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines]


def _order(rows: list[list[str]]) -> list[int]:
    return [int(row[0]) for row in rows[1:]]


def test_completed_trials_come_first_and_those_without_a_value_last() -> None:
    trials = [
        _trial(0, {"val_top1": 0.5}),
        _trial(1, {"val_top1": 0.9}, "running"),
        _trial(2, None, "suggested"),
        _trial(3, {"val_top1": 0.7}),
    ]
    assert _order(_rows(trials)) == [3, 0, 1, 2]


def test_trials_that_violate_a_constraint_are_marked_and_rank_last() -> None:
    trials = [
        _trial(0, {"val_top1": 0.9, "parameters_millions": 5}),
        _trial(1, {"val_top1": 0.5, "parameters_millions": 1}),
        _trial(2, {"val_top1": 0.7, "parameters_millions": 4}),
    ]
    head, *rows = found = _rows(trials, constraints=["parameters_millions <= 2"])
    assert head[3:5] == ["val_top1", "parameters_millions"]
    assert _order(found) == [1, 2, 0]
    assert [row[4] for row in rows] == ["1.000", "4.000 > 2", "5.000 > 2"]


def test_several_objectives_have_a_column_each_and_the_front_comes_first() -> None:
    points = [(0.9, 9.0), (0.8, 10.0), (0.5, 1.0), (0.4, 2.0)]
    trials = [_trial(n, {"val_top1": top, "epoch_seconds": seconds}) for n, (top, seconds) in enumerate(points)]
    found = _rows(trials, objectives=[{"metric": "val_top1"}, {"metric": "epoch_seconds"}])
    assert found[0][3:5] == ["val_top1", "epoch_seconds"]
    assert set(_order(found)[:2]) == {0, 2}, "1 and 3 are dominated"


def test_the_front_has_only_completed_trials_that_keep_the_constraints() -> None:
    points = [(0.9, 9.0), (0.8, 10.0), (0.5, 1.0), (0.95, 20.0), (0.5, 1.0)]
    trials = [_trial(n, {"val_top1": top, "epoch_seconds": seconds}) for n, (top, seconds) in enumerate(points)]
    trials += [_trial(5, {"val_top1": 0.99, "epoch_seconds": 0.1}, "running"), _trial(6, None, "failed")]
    sections = {
        "objectives": [{"metric": "val_top1"}, {"metric": "epoch_seconds"}],
        "constraints": ["epoch_seconds <= 15"],
    }
    front = front_of(trials, dump_spec(parse_spec({**SPEC, **sections})))
    assert [trial["number"] for trial in front] == [0, 2, 4], "equal outcomes are as good as each other"


def test_what_the_model_expected_is_shown_where_there_was_one() -> None:
    known: dict[str, Any] = {"predicted_mean": 0.81234, "predicted_sd": 0.0239, "predicted_feasibility": 0.831}
    assert "expected" not in _rows([_trial(0, {"val_top1": 0.5})])[0]
    head, *rows = _rows([_trial(0, {"val_top1": 0.5}), _trial(1, {"val_top1": 0.4}, **known)])
    assert head[-1] == "expected"
    assert [row[-1] for row in rows] == ["", "0.812 ± 0.024"]


def test_with_constraints_it_is_shown_how_probably_they_hold() -> None:
    known: dict[str, Any] = {"predicted_mean": 0.81234, "predicted_sd": 0.0239, "predicted_feasibility": 0.831}
    metrics = {"val_top1": 0.4, "parameters_millions": 1}
    head, row = _rows([_trial(1, metrics, **known)], constraints=["parameters_millions <= 2"])
    assert (head[-2:], row[-2:]) == (["expected", "feasible"], ["0.812 ± 0.024", "83%"])


@pytest.mark.parametrize(("value", "told"), [(0.0, "0.00"), (0.00593, "0.0059"), (0.5, "0.5"), (12.3456, "12.35")])
def test_a_short_study_has_not_taken_nothing(value: float, told: str) -> None:
    assert hours(value) == told
