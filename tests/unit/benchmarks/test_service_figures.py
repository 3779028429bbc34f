"""The figures of the simulated service, on hand-made rows whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.optimizer.figures import Figure
from benchmarks.optimizer.reference import reference_of
from benchmarks.optimizer.report import figure_table
from benchmarks.optimizer.rows import Row, Run
from benchmarks.optimizer.service_figures import (
    beliefs,
    beyond_two_sd,
    exported_against,
    exported_against_best,
    exported_table,
    failures_late,
    proposals_above_sobol,
    service_figures,
)
from benchmarks.optimizer.traces import Results

PROBLEM = "demo_04"


def trial(
    truth: float, *, model: bool = True, state: str = "completed", mean: float = 0.0, sd: float = 0.0
) -> list[Any]:
    """Return the entry of a trial; without an sd nothing was predicted."""
    prediction = [mean, sd] if sd else [None, None]
    return ["g", model, 12, state, truth, truth, *prediction, 1.0, [0, 3], [], None, truth]


def row(
    method: str, seed: int, trials: Sequence[Any], *, exported: int | None = 0, protocol: str = "service12",
    problem: str = PROBLEM,
) -> Row:  # fmt: skip
    """Return a row of the simulated service."""
    data = {"trials": list(trials), "exported": exported, "epochs": 144, "seconds": 1.0}
    return Row(run=Run(protocol, problem, method, seed), version="1", trials=12, cpu_seconds=0.0, data=data)


def results_of(rows: Sequence[Row]) -> Results:
    """Return results with these rows."""
    return Results(rows={found.run: found for found in rows})


def with_regret(regret: float) -> float:
    """Return the accuracy of the demo that has this regret."""
    reference = reference_of(PROBLEM)
    assert reference.optimum is not None
    assert reference.median is not None
    return -(reference.optimum + regret * (reference.median - reference.optimum))


def value(figure: Figure) -> float:
    """Return the figure's value, which must be measured."""
    assert figure.estimate is not None
    return figure.estimate.value


def test_proposals_are_compared_with_sobols_in_units_of_its_spread() -> None:
    rows = []
    for seed in range(4):
        # Sobol: mean 0.5, sd 0.1; what comes after twelve trials does not count.
        rows.append(row("sobol+asha", seed, [trial(0.4, model=False), trial(0.6, model=False)] * 6 + [trial(9.0)]))
        start = [trial(0.1, model=False)] * 4
        rows.append(row("ours+asha", seed, start + [trial(0.6)] * 4 + [trial(0.7)] * 4 + [trial(9.0)]))
    found = proposals_above_sobol(results_of(rows), "demo", [PROBLEM], 12)
    assert value(found) == pytest.approx(1.5)
    assert (found.better, found.passes, found.problems, found.seeds) == ("more", True, 1, "4")
    assert found.note == "demo_04 +1.50"


def test_the_exported_regret_is_compared_with_the_best_peer_under_our_best_rule() -> None:
    regrets = {"sobol": 0.8, "tpe+median": 0.5, "gp": 0.6, "ours": 0.4, "ours+curves": 0.2, "cqr": 0.25}
    rows = [
        row(method, seed, [trial(0.3), trial(with_regret(regret))], exported=1)
        for method, regret in regrets.items()
        for seed in range(10)
    ]
    results = results_of(rows)
    best = exported_against_best(results, "demo", [PROBLEM], 12)
    assert value(best) == pytest.approx(0.2 / 0.5)
    assert best.note == "ours: ours+curves; best peers: tpe+median"
    assert best.passes
    assert not best.partial
    assert value(exported_against(results, "demo", [PROBLEM], 12, "cqr")) == pytest.approx(0.2 / 0.25)
    assert "| tpe+median | 0.50/-/- (10) |" in exported_table(results, [PROBLEM])
    assert "gp+asha" not in exported_table(results, [PROBLEM])


def test_what_our_rule_exports_is_compared_with_what_was_observed_to_be_best() -> None:
    # The exported one is truly good; the one with the best observed value was lucky.
    lucky = [*trial(with_regret(0.9))[:5], 0.99, *trial(0.0)[6:]]
    rows = [row("ours", seed, [trial(with_regret(0.3)), lucky, trial(0.999, state="stopped")]) for seed in range(3)]
    rows += [row("sobol", seed, [trial(with_regret(0.6))]) for seed in range(3)]
    results = results_of(rows)
    assert value(exported_against_best(results, "demo", [PROBLEM], 12)) == pytest.approx(0.5)
    assert value(exported_against_best(results, "demo", [PROBLEM], 12, by_value=True)) == pytest.approx(1.5)


def test_mean_regrets_are_compared_and_a_run_that_exports_nothing_counts_as_the_median() -> None:
    rows = [row("sobol", seed, [trial(with_regret(0.5))]) for seed in range(2)]
    rows += [row("ours", 0, [trial(with_regret(0.2))]), row("ours", 1, [trial(0.3)], exported=None)]
    found = exported_against_best(results_of(rows), "demo", [PROBLEM], 12)
    assert value(found) == pytest.approx((0.2 + 1) / 2 / 0.5)
    assert found.estimate is not None
    assert found.estimate.low == pytest.approx(0.2 / 0.5)
    assert found.estimate.high == pytest.approx(1 / 0.5)
    assert found.partial


def test_the_share_of_predictions_beyond_two_sd_is_that_of_trials_4_to_20() -> None:
    far, near = trial(0.5, mean=0.3, sd=0.09), trial(0.5, mean=0.3, sd=0.11)
    failed = trial(0.25, mean=0.9, sd=0.01, state="failed")
    trials = [far] * 3 + [near] * 12 + [far] * 3 + [failed, trial(0.5)] + [far] * 5
    rows = [row("ours+asha", seed, trials, protocol="service20") for seed in range(3)]
    found = beyond_two_sd(results_of(rows), "demo", [PROBLEM])
    assert value(found) == pytest.approx(3 / 15)
    assert found.passes is False


def test_beliefs_in_the_ends_of_stopped_trials_are_compared_with_their_truths() -> None:
    def stopped(error: float, sd: float) -> list[Any]:
        # The truth is another one than the end that is believed in.
        return [*trial(0.9, state="stopped")[:-2], [0.5 + error, sd], 0.5]

    # Errors with a root mean square of 0.1, of which three of four are within one sd, and all within 1.96.
    trials = [stopped(0.04, 0.1), stopped(-0.04, 0.1), stopped(0.04, 0.1), stopped(0.18762, 0.1), trial(0.9)]
    rows = [row("ours+asha", seed, trials, protocol="service20") for seed in range(6)]
    ratio, one, two = beliefs(results_of(rows), "demo", [PROBLEM])
    assert value(ratio) == pytest.approx(1.0, abs=1e-3)
    assert (value(one), value(two)) == (0.75, 1.0)
    # Intervals that are too wide fail as those that are too narrow do.
    assert (ratio.passes, one.passes, two.passes) == (True, True, False)
    assert "| 0.9 to 0.99 |" in figure_table([two])


def test_failures_are_counted_from_the_tenth_trial_on() -> None:
    failed, good = trial(0.25, state="failed"), trial(0.5)
    rows = []
    for problem, late in (("demo_error", 2), ("demo_lost", 4)):
        for seed in range(6):
            trials = [failed] * 10 + [failed] * late + [good] * (20 - late)
            rows.append(row("ours", seed, trials, protocol="failing", problem=problem))
    found = failures_late(results_of(rows))
    assert value(found) == pytest.approx(3.0)
    assert found.note == "error 2.0, lost 4.0"
    assert found.partial  # four kinds are missing


def test_without_rows_the_figures_of_the_tables_are_listed_as_not_measured() -> None:
    figures = service_figures(results_of([]))
    assert {figure.estimate for figure in figures} == {None}
    assert sum(figure.name.startswith("trained tables") for figure in figures) == 19
    assert not any(figure.name.startswith("demo") for figure in figures)
    # A bar in a name would be a column of the table.
    assert all(line.count("|") == 9 for line in figure_table(figures).splitlines())


def test_seeds_of_the_two_sides_are_drawn_apart() -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.2, 0.8, size=12)
    rows = [row(name, seed, [trial(with_regret(noise[seed]))]) for name in ("sobol", "ours") for seed in range(12)]
    found = exported_against_best(results_of(rows), "demo", [PROBLEM], 12)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(1.0)
    # Drawn together, equal runs would have an interval of no length.
    assert found.estimate.high - found.estimate.low > 0.2
