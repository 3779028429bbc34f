"""Rows survive kills, and a run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.optimizer import run as run_module
from benchmarks.optimizer.methods import METHODS, version_of
from benchmarks.optimizer.plan import Selection, planned
from benchmarks.optimizer.problems import Problem
from benchmarks.optimizer.protocols import PROTOCOLS
from benchmarks.optimizer.rows import Row, Rows, Run, newest
from benchmarks.optimizer.run import run

SELECTION = Selection(
    protocols=["sequential", "asynchronous"],
    problems=["hartmann6", "conditional"],
    methods=["random", "tpe"],
    seeds=[0, 1],
)


def a_row(seed: int = 0, version: str = "1", method: str = "ours") -> Row:
    """Return a row to vary."""
    found = Run("sequential", "hartmann6", method, seed)
    return Row(run=found, version=version, trials=2, cpu_seconds=0.1, data={"truths": [-1.0, -2.0]})


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "results")
    written = [a_row(0), a_row(1), a_row(0, method="tpe")]
    for row in written:
        rows.append(row)
    assert rows.read() == written


def test_a_torn_line_is_skipped_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.append(a_row(0))
    path = next(tmp_path.glob("*.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    rows.append(a_row(1))
    assert rows.read() == [a_row(0), a_row(1)]


def test_packed_rows_are_read_before_plain_ones(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    written = [a_row(0), a_row(1), a_row(2)]
    for row in written:
        rows.append(row)
        assert rows.pack() == ["sequential-ours.jsonl"]
        assert rows.pack() == []
    later = [a_row(3), a_row(4, method="ours+asha"), a_row(4, method="tpe")]
    for row in later:
        rows.append(row)
    # In the order of the names, in which "+" comes before ".".
    assert rows.read() == [later[1], *written, later[0], later[2]]
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".gz"} == {"sequential-ours.jsonl.gz"}


def test_packing_leaves_out_torn_lines_and_repeats_to_the_byte(tmp_path: Path) -> None:
    whole, torn = Rows(tmp_path / "whole"), Rows(tmp_path / "torn")
    for rows in (whole, torn):
        rows.append(a_row(0))
    plain = tmp_path / "torn" / "sequential-ours.jsonl"
    plain.write_bytes(plain.read_bytes() + b'{"protocol": "sequen')
    for rows in (whole, torn):
        rows.pack()
    packed = [tmp_path / name / "sequential-ours.jsonl.gz" for name in ("whole", "torn")]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert not plain.exists()


def test_versions_of_a_method_are_never_mixed() -> None:
    rows = [a_row(0, "1"), a_row(1, "1"), a_row(0, "2"), a_row(5, method="tpe")]
    assert list(newest(rows).values()) == [a_row(0, "2"), a_row(5, method="tpe")]


def told(rows: Rows) -> dict[Run, Mapping[str, Any]]:
    """Return the measured values, without the times."""
    return {row.run: row.data for row in rows.read()}


def test_a_killed_run_resumes_and_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = Rows(tmp_path / "whole"), Rows(tmp_path / "broken")
    monkeypatch.setattr(run_module, "trials_of", lambda protocol, method: 14)
    assert run(SELECTION, rows=whole, data=tmp_path) == 0
    assert len(told(whole)) == len(list(planned(SELECTION))) == 16

    calls = 0

    def killed(problem: Problem, method: str, seed: int, trials: int) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return PROTOCOLS["sequential"](problem, method, seed, trials)

    with monkeypatch.context() as context:
        context.setattr(run_module, "PROTOCOLS", {**PROTOCOLS, "sequential": killed})
        with pytest.raises(KeyboardInterrupt):
            run(SELECTION, rows=broken, data=tmp_path)
    assert 0 < len(told(broken)) < 16
    run(SELECTION, rows=broken, data=tmp_path, limit=3)
    assert run(SELECTION, rows=broken, data=tmp_path) == 0
    assert told(broken) == told(whole)
    assert len(broken.read()) == 16


def test_a_new_version_of_a_method_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(tmp_path)
    one = Selection(protocols=["sequential"], problems=["hartmann6"], methods=["random"], seeds=[0])
    run(one, rows=rows, data=tmp_path)
    run(one, rows=rows, data=tmp_path)
    assert len(rows.read()) == 1
    monkeypatch.setattr(run_module, "version_of", lambda method: "2")
    run(one, rows=rows, data=tmp_path, keep_old=True)
    assert len(rows.read()) == 1
    run(one, rows=rows, data=tmp_path)
    assert [row.version for row in rows.read()] == ["1", "2"]


def test_every_method_names_its_version() -> None:
    versions = {name: version_of(name) for name in METHODS}
    assert all(versions.values())
    assert versions["ours+asha"] == versions["ours+curves"] != versions["ours"]
    assert versions["tpe"] == versions["gp"] != versions["ax"]


def test_a_problem_without_data_and_a_failing_run_do_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(problem: Problem, method: str, seed: int, trials: int) -> dict[str, Any]:
        if problem.name == "hartmann6":
            raise ValueError("singular")
        return {"truths": [1.0]}

    monkeypatch.setattr(run_module, "PROTOCOLS", {"sequential": failing})
    names = ["lcbench_126029", "hartmann6", "conditional"]
    asked = Selection(protocols=["sequential"], problems=names, methods=["random"], seeds=[0])
    rows = Rows(tmp_path / "results")
    assert run(asked, rows=rows, data=tmp_path) == 1
    assert [row.run.problem for row in rows.read()] == ["conditional"]
    said = capsys.readouterr().err
    assert "left out: lcbench_126029" in said
    assert "failed: sequential hartmann6 random seed 0: ValueError: singular" in said


def test_partial_results_cover_all_problems_alike() -> None:
    runs = list(planned(SELECTION))
    assert [run.method for run in runs] == ["random"] * 8 + ["tpe"] * 8
    assert [run.seed for run in runs[:8]] == [0] * 4 + [1] * 4
