"""The command line: selections, and a report from whatever rows there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.optimizer import report
from benchmarks.optimizer.__main__ import main
from benchmarks.optimizer.rows import Row, Rows, Run
from benchmarks.optimizer.run import run


def test_a_selection_is_run_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "SINGLE", ("hartmann6", "conditional"))
    monkeypatch.setattr(report, "LCBENCH", ("lcbench_126029",))
    where = ["--results", str(tmp_path / "results")]
    chosen = ["--protocols", "sequential", "--problems", "hartmann6", "--methods", "random", "--seeds", "0-1,4"]
    assert main(["run", *where, *chosen]) == 0
    assert [row.run.seed for row in Rows(tmp_path / "results").read()] == [0, 1, 4]
    for method in ("tpe", "ours+curves", "tpe+median"):
        found = Run("fidelity", "lcbench_126029", method, 0)
        data = {"trials": [[52, 0.8, True], [3, 0.9, False]], "epochs": 55}
        Rows(tmp_path / "results").append(Row(run=found, version="1", trials=60, cpu_seconds=0.0, data=data))
    assert main(["report", *where, "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert text in capsys.readouterr().out
    assert "| hartmann6 | " in text
    assert "| trials to reach TPE's regret at 100 | ≤ 0.25 | not measured" in text
    for name in ("trials.png", "epochs.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_scrambled_rows_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ["--results", str(tmp_path)]
    chosen = ["--protocols", "sequential", "--problems", "conditional", "--methods", "random", "--seeds", "0"]
    main(["run", *where, *chosen])
    main(["run", *where, *chosen, "--scramble", "7"])
    plain, scrambled = Rows(tmp_path).read()
    assert (plain.run.scramble, scrambled.run.scramble) == (None, 7)
    monkeypatch.setattr(report, "plot_trials", lambda results, path: None)
    monkeypatch.setattr(report, "plot_epochs", lambda results, path: None)
    text = report.write_report(Rows(tmp_path), tmp_path / "report", scramble=7)
    assert "relabelled and dimensions reflected by 7" in text


def test_times_are_taken_of_all_selected_methods_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.optimizer import latency
    from benchmarks.optimizer.plan import Selection

    monkeypatch.setattr("benchmarks.optimizer.plan.COUNTS", (12,))
    monkeypatch.setattr(latency, "TURNS", {12: 2})
    monkeypatch.setattr("benchmarks.optimizer.run.METHODS_AT", {12: ("tpe", "random")})
    asked = Selection(protocols=["latency"])
    rows = Rows(tmp_path)
    assert run(asked, rows=rows, data=tmp_path) == 0
    found = {row.run.method: row for row in rows.read()}
    assert set(found) == {"tpe", "random"}
    assert found["tpe"].run.problem == "mixed10@12"
    assert found["tpe"].data["beside"] == ["tpe", "random"]
    assert len(found["tpe"].data["seconds"]) == 2
    assert found["tpe"].data["seconds"] > found["random"].data["seconds"]
    assert run(asked, rows=rows, data=tmp_path) == 0
    assert len(rows.read()) == 2


def test_peers_that_are_not_installed_are_left_out_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.optimizer.methods.bridged.PYTHON", tmp_path / "python")
    chosen = ["--protocols", "service12", "--problems", "demo_00", "--methods", "cqr", "sobol", "--seeds", "0-1"]
    assert main(["run", "--results", str(tmp_path), *chosen]) == 0
    assert [row.run.method for row in Rows(tmp_path).read()] == ["sobol", "sobol"]
    assert capsys.readouterr().err.count("left out: cqr") == 1


def test_the_quick_command_prints_a_summary_of_each_method(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--noise", "0.0", "--seeds", "0-1", "--methods", "sobol+asha", "ax", "--trials", "5", "--start", "3"]
    assert main(["quick", *chosen]) == 0
    head, sobol, ours = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "method"
    assert [line.split()[0] for line in (sobol, ours)] == ["sobol+asha", "ax"]
    # Two trials of each run come after the first three, and ours are predicted.
    assert "(4)" in ours
    assert "(" not in sobol
    # Only `ax` names another method here.
    with pytest.raises(KeyError):
        main(["quick", "--seeds", "0", "--methods", "axe"])
