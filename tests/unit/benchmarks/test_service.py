"""The simulated service: the order of its events, its budget, and what is the same for all methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.optimizer import service
from benchmarks.optimizer.methods import Method, Origin, Setting, make_method
from benchmarks.optimizer.problems import Problem, Values, load_problem
from benchmarks.optimizer.problems.demo import CHANCE, EPOCHS, FAILING_RATE, demo, demo_curve
from benchmarks.optimizer.problems.training import Training
from benchmarks.optimizer.service import Simulation, as_row, simulate, walls
from benchmarks.optimizer.study import start_of
from hpo.optimizer.cube import value_at
from hpo.trial import FailureKind, Params, ParamValue

ENDS = ("completed", "stopped", "failed", "paused")


class Script:
    """A method that proposes points of its own and decides by a function of (trial, step)."""

    def __init__(self, problem: Problem, stops: Callable[[int, int], bool] = lambda trial, step: False) -> None:
        self.points = start_of(problem, seed=99, count=60)
        self.stops = stops
        self.pauses = False
        self.asked = 0
        self.calls: list[tuple[object, ...]] = []
        self.paused: list[int] = []
        self.chosen: int | None = None

    def attach(self, params: Params) -> int:
        raise AssertionError("no trial is attached")

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        self.asked += 1
        # Its own numbers, which are not those of the simulation.
        return 100 + self.asked - 1, self.points[self.asked - 1]

    def report(self, trial: int, step: int, value: float) -> bool:
        self.calls.append(("report", trial, step, value))
        return self.stops(trial - 100, step)

    def promoted(self) -> int | None:
        return self.paused.pop(0) if len(self.paused) > 1 else None

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        self.calls.append(("tell", trial, values))

    def stop(self, trial: int) -> bool:
        self.calls.append(("stop", trial))
        if self.pauses:
            self.paused.append(trial)
        return self.pauses

    def fail(self, trial: int, kind: FailureKind = FailureKind.OOM) -> None:
        self.calls.append(("fail", trial, kind))

    def origin(self, trial: int) -> Origin:
        return Origin(generator="script", is_model=trial % 2 == 0, mean=0.5, sd=0.1)

    def beliefs(self) -> dict[int, tuple[float, float]]:
        return {100: (0.6, 0.05)}

    def best(self) -> int | None:
        return self.chosen


def played(
    problem: Problem,
    method: Method,
    *,
    workers: int = 2,
    trials: int | None = None,
    epochs: int | None = None,
    seed: int = 3,
) -> Simulation:
    """Return a finished run of a method."""
    found = Simulation(
        problem=problem, method=method, seed=seed, workers=workers, trials_limit=trials, epochs_limit=epochs
    )
    found.run()
    return found


def check(found: Simulation, *, workers: int, trials: int | None = None, epochs: int | None = None) -> None:
    """Check what holds for the events of every run with these limits."""
    times = [event.time for event in found.events]
    assert times == sorted(times)
    state: dict[int, str] = {}
    done: defaultdict[int, int] = defaultdict(int)
    for place, event in enumerate(found.events):
        known = state.get(event.trial)
        if event.what == "begins":
            assert known is None
        elif event.what == "resumes":
            assert known == "paused"
        else:
            # No report comes after an end, and none before a begin.
            assert known == "running"
        if event.what == "reports":
            done[event.trial] += 1
            assert event.epoch == done[event.trial]
        state[event.trial] = event.what if event.what in ENDS else "running"
        running = sum(what == "running" for what in state.values())
        assert running <= workers
        committed = sum(EPOCHS if what == "running" else done[trial] for trial, what in state.items())
        may_begin = (trials is None or len(state) < trials) and (epochs is None or committed + EPOCHS <= epochs)
        if event.what in ENDS and may_begin:
            # The free worker begins at once, before anything else happens.
            after = found.events[place + 1]
            assert (after.what, after.time) in (("begins", event.time), ("resumes", event.time))
    assert all(what in ENDS for what in state.values())
    assert found.spent == sum(done.values()) <= (epochs or found.spent)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_worker_is_idle_while_trials_are_left_and_no_report_follows_a_stop(workers: int) -> None:
    problem = load_problem("demo_04")
    method = Script(problem, lambda trial, step: trial % 3 == 1 and step == 4)
    found = played(problem, method, workers=workers, trials=20)
    check(found, workers=workers, trials=20)
    assert len(found.trials) == 20
    assert [trial.state for trial in found.trials] == ["completed", "stopped", "completed"] * 6 + [
        "completed",
        "stopped",
    ]
    assert {trial.epochs for trial in found.trials} == {4, EPOCHS}
    # All workers begin at once, and are busy until the last trials.
    assert [event.what for event in found.events[:workers]] == ["begins"] * workers
    last_begin = max(event.time for event in found.events if event.what == "begins")
    busy = sum(trial.ended - trial.began for trial in found.trials if trial.ended <= last_begin)
    busy += sum(last_begin - trial.began for trial in found.trials if trial.ended > last_begin)
    assert busy == pytest.approx(workers * last_begin)


def test_reports_come_in_the_order_of_simulated_time() -> None:
    problem = load_problem("demo_00")
    method = Script(problem)
    found = played(problem, method, trials=2)
    first, second = (np.cumsum(trial.training.seconds) for trial in found.trials)
    expected = sorted([(t, 100) for t in first] + [(t, 101) for t in second])
    assert [call[1] for call in method.calls if call[0] == "report"] == [trial for _, trial in expected]
    assert found.now == pytest.approx(max(first[-1], second[-1]))


def test_the_budget_of_epochs_lasts_for_more_trials_where_some_are_stopped() -> None:
    problem = load_problem("demo_02")
    full = played(problem, Script(problem), epochs=6 * EPOCHS)
    assert [trial.state for trial in full.trials] == ["completed"] * 6
    halved = played(problem, Script(problem, lambda trial, step: step == EPOCHS // 2), epochs=6 * EPOCHS)
    check(halved, workers=2, epochs=6 * EPOCHS)
    # A trial begins only where its last epoch would be within the budget, so half a training is left over.
    assert len(halved.trials) == 11
    assert halved.spent == 11 * EPOCHS // 2


def test_every_method_meets_the_same_noise_and_durations() -> None:
    problem = load_problem("demo_04")
    runs = [simulate(problem, method, 5, trials=6) for method in ("sobol", "tpe")]
    noise = [[np.subtract(trial.training.values, demo_curve(trial.params)) for trial in run.trials] for run in runs]
    np.testing.assert_allclose(noise[0], noise[1])
    assert np.std(noise[0]) == pytest.approx(0.04, rel=0.2)
    other = simulate(problem, "sobol", 6, trials=6).trials[0].training
    assert not np.allclose(other.values, runs[0].trials[0].training.values)


def test_a_failed_training_is_told_as_a_failure_and_spends_its_epochs() -> None:
    problem = demo("failing", 0.0, FailureKind.LOST)
    method = Script(problem)
    found = played(problem, method, trials=20)
    check(found, workers=2, trials=20)
    fails = [float(trial.params["lr"]) > FAILING_RATE for trial in found.trials]
    assert any(fails)
    assert [trial.state == "failed" for trial in found.trials] == fails
    assert {trial.epochs for trial in found.trials if trial.state == "failed"} == {1}
    assert {trial.truth for trial in found.trials if trial.state == "failed"} == {CHANCE}
    told = [call for call in method.calls if call[0] == "fail"]
    assert told == [
        ("fail", 100 + trial.number, FailureKind.LOST) for trial in _by_end(found) if trial.state == "failed"
    ]


def _by_end(found: Simulation) -> list[service.Trial]:
    return sorted(found.trials, key=lambda trial: trial.ended)


def test_a_paused_trial_continues_where_it_was_and_is_promoted_before_a_new_one_begins() -> None:
    problem = load_problem("demo_00")
    method = Script(problem, lambda trial, step: step == 4)
    method.pauses = True
    found = played(problem, method, workers=1, epochs=3 * EPOCHS)
    check(found, workers=1, epochs=3 * EPOCHS)
    order = [(event.what, event.trial) for event in found.events if event.what not in ("reports", "paused")]
    assert order[:4] == [("begins", 0), ("begins", 1), ("resumes", 0), ("completed", 0)]
    assert [call[2] for call in method.calls if call[:2] == ("report", 100)] == list(range(1, EPOCHS + 1))


def test_the_exported_trial_is_the_methods_choice_or_the_best_observed_completed_one() -> None:
    problem = load_problem("demo_04")
    method = Script(problem, lambda trial, step: trial % 2 == 0 and step == 4)
    found = played(problem, method, trials=8)
    completed = [trial for trial in found.trials if trial.state == "completed"]
    best = max(completed, key=lambda trial: trial.training.values[-1])
    assert found.exported() == best.number
    assert as_row(found)["exported"] == best.number
    # A stopped trial counts only while none has completed.
    assert max(trial.observed or 0 for trial in found.trials if trial.state == "stopped") > 0
    method.chosen = 104
    assert found.exported() == 4
    stopped = played(problem, Script(problem, lambda trial, step: step == 1), trials=4)
    assert stopped.exported() == max(stopped.trials, key=lambda trial: trial.training.values[0]).number


def test_a_row_says_of_each_trial_what_figures_need() -> None:
    problem = load_problem("demo_02")
    found = played(problem, Script(problem, lambda trial, step: step == 5), trials=3)
    row = as_row(found)
    for entry, trial in zip(row["trials"], found.trials, strict=True):
        generator, is_model, epochs, state, truth, observed, mean, sd, ended, _, params, believed, end = entry
        assert (generator, is_model, epochs, state, mean, sd) == (
            "script",
            trial.number % 2 == 0,
            5,
            "stopped",
            0.5,
            0.1,
        )
        assert truth == pytest.approx(demo_curve(trial.params)[-1], rel=1e-4)
        assert observed == pytest.approx(trial.training.values[4], rel=1e-4)
        assert ended == pytest.approx(trial.ended, abs=0.1)
        assert end == truth
        assert believed == ([0.6, 0.05] if trial.number == 0 else None)
        assert dict(zip(problem.space, params, strict=True))["model"] == trial.params["model"]


def test_walls_are_counted_for_ranges_and_not_for_choices() -> None:
    problem = load_problem("demo_02")
    params = {key: value_at(parameter, 0.5) for key, parameter in problem.space.items() if not parameter.when}
    inside = walls(problem, params)
    assert inside == [0, 3]
    low, high = problem.space["lr"], problem.space["dropout"]
    at = {**params, "lr": low.low, "dropout": high.high}  # type: ignore[union-attr]  # both are floats
    assert walls(problem, at) == [2, 3]


def test_rules_compare_trials_from_a_third_of_the_epochs_on() -> None:
    for method in ("sobol+asha", "tpe+asha", "sobol+median", "tpe+median"):
        found = simulate(load_problem("demo_00"), method, 0, trials=14)
        stopped = [trial.epochs for trial in found.trials if trial.state == "stopped"]
        assert stopped, method
        assert min(stopped) >= 4


def test_our_optimizer_says_which_trials_a_model_chose_and_what_it_predicted() -> None:
    found = simulate(load_problem("demo_00"), "ours", 0, trials=6)
    origins = [trial.origin for trial in found.trials]
    # A third of so small a budget is the start-up.
    assert [origin.is_model for origin in origins] == [False] * 3 + [True] * 3
    assert all(origin.mean is None for origin in origins[:3])
    assert all(0 < (origin.mean or 0) < 1 and (origin.sd or 0) > 0 for origin in origins[3:])


def test_our_optimizer_says_what_it_believes_of_the_trials_that_were_stopped() -> None:
    found = simulate(load_problem("demo_00"), "ours+asha", 0, trials=12)
    believed = [trial.believed is not None for trial in found.trials]
    assert believed == [trial.state == "stopped" for trial in found.trials]
    assert any(believed)
    assert all(0 < trial.believed[0] < 1 and trial.believed[1] > 0 for trial in found.trials if trial.believed)


def test_a_training_without_a_duration_for_every_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="seconds of every epoch"):
        Training(values=(0.1, 0.2), seconds=(1.0,))
    with pytest.raises(ValueError, match="seconds of every epoch"):
        Training(values=(0.1,), seconds=(1.0,), failure=FailureKind.OOM)


def test_a_problem_without_trainings_is_refused() -> None:
    problem = replace(load_problem("demo_00"), training=None)
    with pytest.raises(ValueError, match="no simulated trainings"):
        played(problem, Script(problem), trials=1)


def test_a_third_of_the_failing_space_fails() -> None:
    points = start_of(load_problem("demo_00"), seed=1, count=2000)
    share = np.mean([float(params["lr"]) > FAILING_RATE for params in points])
    assert share == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("noise", [0.0, 0.04])
def test_the_demo_ends_on_average_at_its_truth_and_scrambling_changes_no_outcome(noise: float) -> None:
    problem = demo("demo", noise)
    params = {**start_of(problem, seed=2, count=1)[0]}
    ends = [problem.training(params, np.random.default_rng(seed)).values[-1] for seed in range(400)]  # type: ignore[misc]  # it has trainings
    assert np.mean(ends) == pytest.approx(problem.true(params)[0], abs=4 * noise / 20 + 1e-9)
    assert np.std(ends) == pytest.approx(noise, rel=0.15)
    turned = load_problem("demo_04", scramble=3)
    truths = [np.sort(found.truth(start_of(found, seed=0, count=400))[:, 0]) for found in (turned, problem)]
    np.testing.assert_allclose(np.mean(truths[0]), np.mean(truths[1]), atol=0.03)
    found = simulate(turned, "sobol+asha", 0, trials=8)
    assert {trial.state for trial in found.trials} == {"completed", "stopped"}


def test_a_method_is_told_what_its_settings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Setting] = []

    def make(name: str, setting: Setting) -> Method:
        seen.append(setting)
        return make_method(name, setting)

    monkeypatch.setattr(service, "make_method", make)
    simulate(load_problem("demo_00"), "sobol", 7, trainings=3)
    assert [(setting.seed, setting.trials, setting.min_epochs) for setting in seen] == [(7, 3, 4)]
