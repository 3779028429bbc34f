"""The simulation says its result at any time, of all runs together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.scale_record import RunRecord, percentiles, read, result, write

RUN: dict[str, Any] = {
    "began": 1000.0,
    "seconds": 100.0,
    "workers": 10,
    "processes": 2,
    "optimizers": 1,
    "load": 3.0,
    "calls": {"claim": 50, "report": 400, "finish": 50},
    "waited": {"report": [0.01, 0.2]},
    "cpu": {"the API": 2.0},
}


def test_a_run_that_goes_on_counts_once_and_runs_add_up(tmp_path: Path) -> None:
    write(tmp_path, RunRecord(**{**RUN, "seconds": 50.0}))
    write(tmp_path, RunRecord(**RUN))
    write(tmp_path, RunRecord(**{**RUN, "began": 2000.0, "workers": 20}))
    runs = read(tmp_path)
    assert [(run.seconds, run.workers) for run in runs] == [(100.0, 10), (100.0, 20)]
    said = result(runs, ended=400, trials=1000)
    assert "400 of 1,000 trials have ended (40%)" in said
    assert "| run of | workers |" in said
    assert "| 100 s | 20 | 2, 1 | 3 | 50 | 5 |" in said
    assert "| the API | 4.00 | 40.0 |" in said, "1,000 calls and 100 trials in all"
    assert "| report | 800 | 0.010 | 0.200 |" in said
    assert "the other 600 trials take 0.3 hours" in said


def test_before_the_first_run_there_is_a_result_too(tmp_path: Path) -> None:
    assert "No run has begun" in result(read(tmp_path), ended=0, trials=10)


def test_percentiles_are_those_of_the_sorted_seconds() -> None:
    assert percentiles({"claim": [3.0, *[1.0] * 98, 2.0]}) == {"claim": (1.0, 3.0)}
