"""The report on the demo's study over several seeds: which trials are the start-up's, and who has found the answer."""

from __future__ import annotations

from typing import Any

from benchmarks.demo_seeds import report


def _trial(number: int, generator: str, value: float | None) -> dict[str, Any]:
    metrics = None if value is None else {"val_top1": value}
    return {"number": number, "generator": generator, "metrics": metrics}


def _row(seed: int, proposal: float, best: int) -> dict[str, Any]:
    trials = [
        _trial(0, "sobol", 0.5),
        _trial(1, "sobol", 0.3),
        _trial(2, "ax", proposal),
        _trial(3, "ax", 0.4),
        _trial(4, "ax", None),  # it failed
    ]
    return {"seed": seed, "trials": trials, "best": {"number": best}}


def test_each_study_has_a_line_and_all_together_have_means_with_errors() -> None:
    lines = list(report([_row(1, proposal=0.8, best=2), _row(0, proposal=0.6, best=0)]))
    assert lines[2:] == [
        "| 0 | 0.400 | 0.500 | 0.500 | 0.600 | start-up |",
        "| 1 | 0.400 | 0.600 | 0.500 | 0.800 | proposal |",
        "| mean | 0.400 ± 0.000 | 0.550 ± 0.050 | 0.500 ± 0.000 | 0.700 ± 0.100 | |",
    ]


def test_a_study_without_a_result_of_either_is_left_out() -> None:
    without = {"seed": 2, "trials": [_trial(0, "sobol", 0.5)], "best": {"number": 0}}
    assert len(list(report([without]))) == 2, "the headings alone"
    assert len(list(report([without, _row(0, proposal=0.6, best=0)]))) == 4
