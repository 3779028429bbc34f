"""The figures of beliefs about the ends of curves, on curves and errors that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.beliefs import KINDS, CurveSet, Found, main, predictions, rows


def test_errors_of_the_believed_size_give_a_ratio_of_one_and_the_shares_of_a_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    deviations = rng.uniform(0.5, 2.0, 100_000)
    found = Found(errors=deviations * rng.standard_normal(100_000), deviations=deviations, spread=2.0)
    ratio, *shares, rmse = (float(cell) for cell in found.cells())
    assert ratio == pytest.approx(1, abs=0.02)
    assert shares == pytest.approx([0.68, 0.95], abs=0.01)
    assert rmse == pytest.approx(np.sqrt((deviations**2).mean()) / 2, abs=0.01)


def _lines() -> CurveSet:
    """Return curves whose ends are known from two epochs: they rise evenly in log epochs."""
    slopes = np.linspace(0, 0.2, 60)[:, None]
    values = 0.1 + slopes * np.log(np.arange(1, 25))
    return CurveSet(name="lines", values=values, ends=values[:, -1])


def test_noise_blurs_what_is_known_of_completed_trials_and_stopped_ones_are_known_less() -> None:
    exact, noisy = predictions(_lines(), 0.0, 2), predictions(_lines(), 0.05, 2)
    assert np.abs(exact["completed"].errors).max() < 0.01
    for found in (exact, noisy):
        size = {kind: float(np.sqrt((found[kind].errors ** 2).mean())) for kind in KINDS}
        assert size["completed"] < min(size["stopped"], size["running"])
    assert np.abs(noisy["completed"].errors).mean() > 3 * np.abs(exact["completed"].errors).mean()


def test_there_is_a_row_for_each_kind_at_each_noise_and_measured_curves_keep_their_own() -> None:
    lines = _lines()
    table = list(rows([lines], [0.0, 0.02], 1))
    assert [row.split(" | ")[1:3] for row in table] == [[noise, kind] for noise in ("0", "0.02") for kind in KINDS]
    measured = CurveSet(name="lines", values=lines.values, ends=lines.ends, is_measured=True)
    assert [row.split(" | ")[1] for row in rows([measured], [0.0, 0.02], 1)] == ["its own"] * len(KINDS)


def test_curves_that_are_not_known_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sets", "power", "lines"]) == 1
    assert "no curves lines; known: power" in capsys.readouterr().err


def test_a_set_is_the_same_alone_and_beside_others(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--draws", "1", "--noise", "0.02"]
    assert main(["--sets", "slow", "demo", "motion", *asked]) == 0
    together = capsys.readouterr().out.splitlines()[2:]
    assert main(["--sets", "demo", *asked]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == together[len(KINDS) : 2 * len(KINDS)]
    assert len(together) == 3 * len(KINDS)
    cells = [[float(cell) for cell in row.strip("| ").split(" | ")[3:]] for row in together]
    assert all(0 <= within <= wider <= 1 for _, within, wider, _ in cells)


def test_a_set_whose_data_are_missing_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sets", "lcbench_126029", "--yahpo", str(tmp_path)]) == 0
    assert "left out" in capsys.readouterr().err
