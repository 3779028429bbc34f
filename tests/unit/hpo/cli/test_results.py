"""The leaderboard that `hpo trials` and the demo print."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
from rich.console import Console

from hpo.cli.finalists import finalists
from hpo.cli.leaderboard import csv_table, leaderboard, reasons
from hpo.cli.study_lines import hours
from hpo.cli.trial_values import where
from hpo.spec import dump_spec, parse_spec
from hpo.spec.finalists import FinalistsConfig

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


def _rows(trials: list[dict[str, Any]], answer: dict[str, Any] | None = None, **sections: Any) -> list[list[str]]:
    table = leaderboard(trials, dump_spec(parse_spec({**SPEC, **sections})), answer).table()
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


def test_trials_on_several_versions_of_the_data_show_theirs() -> None:
    def shown(*versions: str | None) -> list[list[str]]:
        metrics = {"val_top1": 0.5}
        return _rows([_trial(n, metrics, dataset_version=version) for n, version in enumerate(versions)])

    assert "data" not in shown("a" * 32, None, "a" * 32)[0]
    rows = shown("a" * 32, None, "b" * 32)
    column = rows[0].index("data")
    assert [row[column] for row in rows[1:]] == ["a" * 12, "", "b" * 12]
    trials = [_trial(0, None, dataset_version="a" * 32), _trial(1, None, dataset_version="b" * 32), _trial(2, None)]
    assert [trial["number"] for trial in where(trials, ["data=" + "b" * 12], known=[])] == [1]


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


def test_with_an_answer_its_configurations_come_first_with_what_is_expected_of_them() -> None:
    trials = [
        _trial(0, {"val_top1": 0.9}),
        _trial(1, {"val_top1": 0.5}, "running"),
        _trial(2, {"val_top1": 0.6}),
        _trial(3, {"val_top1": 0.7}, "stopped"),
        _trial(4, {"val_top1": 0.95}),
    ]
    estimates = [{"expected": 0.71234, "expected_sd": 0.0512}, {"expected": 0.6, "expected_sd": 0.1}]
    groups = [{"chosen": 3, "trials": [3]}, {"chosen": 2, "trials": [0, 2]}]
    configurations = [{**one, "estimates": {"val_top1": two}} for one, two in zip(groups, estimates, strict=True)]
    head, *rows = _rows(trials, {"metric": "val_top1", "configurations": configurations})
    assert [row[0] for row in rows] == ["3", "2", "0", "4", "1"]
    place = head.index("on new data")
    assert [row[place] for row in rows] == ["0.712 ± 0.051", "0.600 ± 0.1", "0.600 ± 0.1", "", ""]


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


def test_a_narrow_terminal_gets_fewer_columns_and_whole_values() -> None:
    choices = ["slowfast_r50_4x16", "r2plus1d_18"]
    space = {
        **SPEC["space"],
        "model": {"type": "categorical", "choices": choices},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 5e-3, "log": True},
    }
    params = [
        {"lr": 0.001 * (n + 1), "model": choices[n % 2], "dropout": 0.5, "weight_decay": 1e-5 * n} for n in (0, 1)
    ]
    trials = [
        _trial(n, {"val_top1": 0.5 + n / 10}, params=params[n], predicted_mean=0.5, predicted_sd=0.1) for n in (0, 1)
    ]
    board = leaderboard(trials, dump_spec(parse_spec({**SPEC, "space": space})))
    console = Console(width=80)
    with console.capture() as capture:
        console.print(board.table(80))
    lines = capture.get().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in capture.get()
    assert all(choice in capture.get() for choice in choices)
    shown = [column.name for column in board.fitting(80)]
    assert shown[:4] == ["trial", "state", "epochs", "val_top1"]
    assert [c.name for c in board.fitting(70)][4:] == ["lr", "model"], "what differs stays before what is the same"
    assert board.left_out(80) == [name for name in (c.name for c in board.columns) if name not in shown]
    assert board.left_out(None) == []
    assert [column.name for column in board.fitting(10)] == ["trial", "state", "val_top1"], "some stay always"


def test_equal_reasons_of_failures_are_one_line() -> None:
    failed = [_trial(n, None, "failed", failure_kind="oom", failure_message="no memory\nTraceback") for n in range(10)]
    other = _trial(11, None, "failed", failure_kind="error", failure_message="x")
    assert list(reasons([*failed, other])) == [
        "trials 0, 1, 2, 3, 4, 5, 6, 7 and 2 more failed: oom: no memory",
        "trial 11 failed: error: x",
    ]


def test_a_table_for_a_spreadsheet_holds_no_formula() -> None:
    trial = _trial(0, {"val_top1": -0.5}, attempt=1, failure_message="=1+1")
    head, row = csv_table([trial], dump_spec(parse_spec(SPEC))).splitlines()
    cells = dict(zip(head.split(","), row.split(","), strict=True))
    assert (cells["failure_message"], cells["metrics.val_top1"], cells["params.lr"]) == ("'=1+1", "-0.5", "0.01")
    for sign in "=+-@\uff1d\uff0b\uff0d\uff20":  # and their full-width forms
        trial = _trial(0, {}, attempt=1, failure_message=f"{sign}x")
        _, row = csv_table([trial], dump_spec(parse_spec(SPEC))).splitlines()
        assert f"'{sign}x" in row.split(",")


def test_what_finalists_are_by_default_is_what_a_spec_has() -> None:
    known, default = signature(finalists).parameters, FinalistsConfig()
    for name in ("top", "seeds", "share", "probability"):
        assert known[name].default == getattr(default, name)
