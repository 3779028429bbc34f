"""The figures of the report, against SciPy, BoTorch and hand-made rows whose answer is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.optimizer import figures
from benchmarks.optimizer.bootstrap import Estimate, interval, of_means, over_problems, weights
from benchmarks.optimizer.figures import NOT_REACHED, Figure
from benchmarks.optimizer.hypervolume import hypervolume
from benchmarks.optimizer.problems import LCBENCH
from benchmarks.optimizer.reference import Reference, reference_of
from benchmarks.optimizer.report import figure_table
from benchmarks.optimizer.rows import Row, Run
from benchmarks.optimizer.traces import MIN_REGRET, Results, epoch_trace, trace_of


def a_row(problem: str, method: str, seed: int, data: dict[str, Any], protocol: str = "sequential") -> Row:
    """Return a row of any protocol."""
    return Row(run=Run(protocol, problem, method, seed), version="1", trials=60, cpu_seconds=0.0, data=data)


def results_of(*rows: Row) -> Results:
    """Return results with these rows."""
    return Results(rows={row.run: row for row in rows})


def values_at(problem: str, regrets: list[float]) -> list[float]:
    """Return the values that have these normalized regrets."""
    reference = reference_of(problem)
    assert reference.optimum is not None
    assert reference.median is not None
    return [reference.sign * (reference.optimum + r * (reference.median - reference.optimum)) for r in regrets]


def falling(problem: str, method: str, seed: int, steps: Callable[[int], float], count: int = 100) -> Row:
    """Return a run in which a function gives the regret after each trial."""
    regrets = [steps(trial) for trial in range(1, count + 1)]
    return a_row(problem, method, seed, {"truths": values_at(problem, regrets)})


@pytest.mark.parametrize("seed", range(3))
def test_hypervolume_is_that_of_botorch(seed: int) -> None:
    with warnings.catch_warnings(action="ignore"):  # linear_operator uses torch.jit.script
        import torch
        from botorch.utils.multi_objective.hypervolume import Hypervolume
        from botorch.utils.multi_objective.pareto import is_non_dominated

    losses = np.random.default_rng(seed).normal(size=(40, 2))
    corner = np.array([0.7, 0.9])
    gains = torch.from_numpy(-losses)
    expected = Hypervolume(torch.from_numpy(-corner)).compute(gains[is_non_dominated(gains)])
    assert hypervolume(losses, corner) == pytest.approx(expected)
    growing = [hypervolume(losses[:count], corner) for count in range(1, len(losses) + 1)]
    assert np.all(np.diff(growing) >= 0)


def test_hypervolume_of_nothing_better_than_the_corner_is_zero() -> None:
    assert hypervolume([[2.0, 0.0], [0.0, 2.0]], [1.0, 1.0]) == 0
    assert hypervolume([[0.0, 0.0], [0.0, 0.0]], [1.0, 2.0]) == 2


def test_an_interval_may_end_in_infinity() -> None:
    """As a ratio does where the peer has found nothing in some draws."""
    assert interval(np.array([*np.arange(100.0), *[np.inf] * 5])) == (2.0, np.inf)


def test_intervals_of_a_mean_are_those_of_scipy() -> None:
    sample = np.random.default_rng(1).lognormal(size=30)
    ours = interval((weights(30, draws=20_000) @ sample)[1:])
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=20_000, method="percentile", random_state=2)
    np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=0.02)
    assert of_means([sample]).value == pytest.approx(sample.mean())


def test_a_figure_over_problems_is_the_geometric_mean() -> None:
    logs = [np.full(2001, np.log(ratio)) for ratio in (0.1, 0.4, 2.0)]
    found = over_problems(logs)
    assert found.value == pytest.approx(stats.gmean([0.1, 0.4, 2.0]))
    assert found.low == pytest.approx(found.high)
    assert found.wide_low == pytest.approx(0.1, rel=0.5)
    assert found.wide_high > 1


def test_regret_is_zero_at_the_optimum_and_one_at_the_median() -> None:
    least = Reference(optimum=-3.0, median=1.0)
    np.testing.assert_allclose(least.regret([-3.0, 1.0, 5.0, -4.0]), [0, 1, 2, 0])
    most = Reference(sign=-1.0, optimum=-0.9, median=-0.5)
    np.testing.assert_allclose(most.regret([0.9, 0.5, 0.7]), [0, 1, 0.5])


def test_traces_are_of_the_best_tried_or_of_the_best_observed() -> None:
    truths = values_at("levy5", [0.8, 0.2, 0.5, 0.0])
    row = a_row("levy5", "tpe", 0, {"truths": truths, "values": [3.0, 2.0, 1.0, 9.0]})
    np.testing.assert_allclose(trace_of(row), [0.8, 0.2, 0.2, MIN_REGRET], rtol=1e-6)
    np.testing.assert_allclose(trace_of(row, "incumbent"), [0.8, 0.2, 0.5, 0.5], rtol=1e-6)


def test_regret_over_epochs_counts_completed_trials_only() -> None:
    good, fair = values_at("lcbench_126029", [0.1, 0.4])
    trials = [[52, fair, True], [3, good, False], [52, good, True]]
    trace = epoch_trace(a_row("lcbench_126029", "tpe", 0, {"trials": trials, "epochs": 107}, "fidelity"))
    assert len(trace) == 60 * 52
    assert np.isinf(trace[:51]).all()
    np.testing.assert_allclose(trace[51:106], 0.4, rtol=1e-6)
    np.testing.assert_allclose(trace[106:], 0.1, rtol=1e-6)


def test_trials_to_reach_a_peer_half_as_fast_are_half() -> None:
    rows = [
        row
        for seed in range(4)
        for problem in ("hartmann6", "vehicle")
        for row in (
            falling(problem, "tpe", seed, lambda trial: 1 - trial / 200),
            falling(problem, "ours", seed, lambda trial: 1 - trial / 100),
        )
    ]
    found = figures.trials_to_reach(results_of(*rows), "tpe", 100, 0.25)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.5)
    assert (found.problems, found.seeds, found.passes, found.partial) == (2, "4", False, True)
    assert "on part of the rows" in figure_table([found])


def test_a_regret_never_reached_counts_as_twice_the_budget() -> None:
    rows = [falling("hartmann6", "tpe", seed, lambda _: 0.1) for seed in (0, 1)]
    rows += [falling("hartmann6", "ours", seed, lambda _: 0.2) for seed in (0, 1)]
    found = figures.trials_to_reach(results_of(*rows), "tpe", 100, 0.25)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(NOT_REACHED)
    assert found.note == "not reached on 1 of 1 problems"


def test_only_seeds_that_both_have_are_compared() -> None:
    rows = [falling("hartmann6", "tpe", seed, lambda trial: 1 / trial) for seed in range(5)]
    rows += [falling("hartmann6", "ours", seed, lambda trial: 1 / trial) for seed in (1, 3, 9)]
    found = figures.trials_to_reach(results_of(*rows), "tpe", 100, 0.25)
    assert found.seeds == "2"
    assert figures.trials_to_reach(results_of(*rows), "gp", 100, 0.8).estimate is None


def test_the_bound_decides_and_not_the_value() -> None:
    estimate = Estimate(value=0.2, low=0.1, high=0.3, wide_low=0.1, wide_high=0.4)
    assert Figure(name="a", bar=0.3, estimate=estimate).passes
    assert Figure(name="b", bar=0.25, estimate=estimate).passes is False
    assert Figure(name="c", bar=0.15, better="more", estimate=estimate).passes is False
    assert Figure(name="d", bar=0.1).passes is None
    table = figure_table([Figure(name="b", bar=0.25, estimate=estimate), Figure(name="e", bar=0.1, estimate=estimate)])
    assert "miss (the bound; the value clears it)" in table
    assert "miss (2 x the bar)" in table
    # A ratio to a bar of the other sign would mean nothing.
    below = Estimate(value=-0.2, low=-0.3, high=-0.1, wide_low=-0.3, wide_high=-0.1)
    assert "miss (by 0.7)" in figure_table([Figure(name="f", bar=0.5, better="more", estimate=below)])


def fidelity_rows(method: str, epochs: int, count: int, regret: float) -> list[Row]:
    """Return two runs per task with `count` bad trials of `epochs` epochs and then a good one that completes."""
    rows = []
    for problem in LCBENCH:
        good, bad = values_at(problem, [regret, 0.9])
        trials = [[52, bad, True]] + [[epochs, bad, epochs == 52]] * count + [[52, good, True], [1, bad, False]]
        data = {"trials": trials, "epochs": sum(trial[0] for trial in trials)}
        rows += [a_row(problem, method, seed, data, "fidelity") for seed in (0, 1)]
    return rows


def test_epochs_are_compared_at_the_regret_of_full_length_tpe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "weights", partial(weights, draws=50))
    rows = fidelity_rows("tpe", 52, 57, 0.2)
    rows += fidelity_rows("tpe+asha", 10, 20, 0.2) + fidelity_rows("tpe+median", 20, 20, 0.2)
    rows += fidelity_rows("tpe+hyperband", 20, 20, 0.5)
    rows += fidelity_rows("ours+asha", 1, 48, 0.2)
    results = results_of(*rows)
    full = figures.epochs_against_full(results, "ours+asha", 0.15)
    assert full.estimate is not None
    assert full.estimate.value == pytest.approx((52 + 48 + 52) / (60 * 52))
    pruner = figures.epochs_against_pruner(results, "ours+asha", 0.35)
    assert pruner.estimate is not None
    assert pruner.estimate.value == pytest.approx(152 / (52 + 200 + 52))
    assert pruner.note == "best: asha, asha, asha, asha"


def test_good_configurations_that_were_stopped_are_counted() -> None:
    rows = []
    for seed in (0, 1):
        best, second, bad = values_at("lcbench_126029", [0.01, 0.02, 0.9])
        trials = [[52, best, True], [3, second, False], *([[1, bad, False]] * 38), [9, best, False]]
        rows.append(a_row("lcbench_126029", "ours+asha", seed, {"trials": trials, "epochs": 200}, "fidelity"))
    found = figures.good_ones_stopped(results_of(*rows), "ours+asha", 0.03)
    assert found.estimate is not None
    assert found.estimate.value == 0.5


def test_a_good_configuration_that_was_paused_and_finished_later_was_not_stopped() -> None:
    rows = []
    for seed in (0, 1):
        best, second, bad = values_at("lcbench_126029", [0.01, 0.02, 0.9])
        trials = [[14, best, False], [3, second, False], *([[1, bad, False]] * 38), [38, best, True, 0]]
        trials.append([9, bad, False])
        rows.append(a_row("lcbench_126029", "ours+asha", seed, {"trials": trials, "epochs": 200}, "fidelity"))
    found = figures.good_ones_stopped(results_of(*rows), "ours+asha", 0.03)
    assert found.estimate is not None
    assert found.estimate.value == 0.5


def test_memory_time_and_hypervolume_are_read_from_their_rows() -> None:
    rows = []
    for seed in (0, 1):
        truths = [None] * 12 + [0.7, None, 0.8]
        rows.append(a_row("memory", "ours", seed, {"truths": truths, "oom_after_start": 1}, "memory"))
        rows.append(a_row("memory", "tpe", seed, {"truths": [0.5] * 15, "oom_after_start": 9}, "memory"))
        for method, reach in (("ours", 1.0), ("gp", 0.5)):
            data = {"losses": [[18 - 2 * reach, 6 - reach]]}
            rows.append(a_row("branin_currin", method, seed, data, "hypervolume"))
    rows.append(a_row("mixed10@100", "ours", 0, {"seconds": [0.1, 0.3]}, "latency"))
    rows.append(a_row("mixed10@100", "ax", 0, {"seconds": [4.0, 4.0]}, "latency"))
    results = results_of(*rows)
    measured = [
        figures.lost_to_memory(results, 3.0),
        figures.best_within_memory(results, ["tpe"]),
        figures.time_against(results, "ax", 100, 1 / 20),
        figures.hypervolume_against(results, "gp"),
    ]
    assert [found.estimate.value for found in measured if found.estimate] == pytest.approx([1, 0.3, 0.05, 4])
