"""Every method of a seed meets the same start, noise and durations, and the protocols keep their books right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.optimizer import protocols
from benchmarks.optimizer.methods import Origin, Setting, make_method
from benchmarks.optimizer.problems import Problem, Values, load_problem
from benchmarks.optimizer.problems.problem import ACCURACY
from benchmarks.optimizer.protocols import MEMORY_START, asynchronous, fidelity, memory, sequential
from benchmarks.optimizer.study import START, spec_of, start_of
from hpo.spec import FloatParameter
from hpo.trial import FailureKind, Params, ParamValue

EPOCHS = 10


class Script:
    """A method that proposes what it is told to, stops where it is told to, and writes down what happens."""

    def __init__(self, setting: Setting) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.problem = setting.problem
        self.count = 0

    def attach(self, params: Params) -> int:
        self.events.append(("attach", self.count))
        self.count += 1
        return self.count - 1

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        self.events.append(("ask", self.count))
        self.count += 1
        return self.count - 1, start_of(self.problem, seed=99, count=1)[0]

    def report(self, trial: int, step: int, value: float) -> bool:
        return trial % 2 == 1 and step == 4

    def promoted(self) -> int | None:
        return None

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        self.events.append(("tell", trial, values, memory_gib))

    def stop(self, trial: int) -> bool:
        self.events.append(("stop", trial))
        return False

    def fail(self, trial: int, kind: FailureKind = FailureKind.OOM) -> None:
        self.events.append(("fail", trial, kind))

    def origin(self, trial: int) -> Origin:
        return Origin(generator="script", is_model=True)

    def beliefs(self) -> dict[int, tuple[float, float]]:
        return {}

    def best(self) -> None:
        return None


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[Script]:
    """The scripted methods that the protocols make."""
    made: list[Script] = []

    def make(name: str, setting: Setting) -> Script:
        made.append(Script(setting))
        return made[-1]

    monkeypatch.setattr(protocols, "make_method", make)
    return made


@pytest.mark.parametrize("problem", ["levy5", "conditional"])
def test_all_methods_of_a_seed_have_one_start_and_one_noise(problem: str) -> None:
    counts = {"random": START + 3, "tpe": START + 3, "ours": START}
    found = [sequential(load_problem(problem), method, 3, count) for method, count in counts.items()]
    assert found[0]["truths"][:START] == found[1]["truths"][:START] == found[2]["truths"]
    other = sequential(load_problem(problem), "random", 4, START)
    assert other["truths"] != found[0]["truths"][:START]
    if "values" in found[0]:
        noise = [np.subtract(run["values"], run["truths"]) for run in found]
        np.testing.assert_allclose(noise[0], noise[1], atol=1e-4)
        np.testing.assert_allclose(noise[0][:START], noise[2], atol=1e-4)


def test_eight_workers_are_kept_busy_on_a_simulated_clock(scripts: list[Script]) -> None:
    problem = load_problem("hartmann6")
    asynchronous(problem, "script", 5, 20)
    events = scripts[0].events
    begun = np.cumsum([1 if event[0] in ("attach", "ask") else -1 for event in events])
    assert begun.max() == 8
    assert (begun[7:-8] >= 7).all()
    # The first to finish is the shortest of the first eight.
    durations = [protocols.duration(problem, 5, place) for place in range(20)]
    first = next(event[1] for event in events if event[0] == "tell")
    assert first == int(np.argmin(durations[:8]))
    assert sorted(event[1] for event in events if event[0] == "tell") == list(range(20))


def curved(name: str = "curved") -> Problem:
    """Return a problem with learning curves."""
    space = {"model.x": FloatParameter(type="float", low=0.1, high=1.0)}
    return Problem(
        name=name,
        space=space,
        objectives=(ACCURACY,),
        truth=lambda many: np.array([[float(params["model.x"])] for params in many]),
        epochs=EPOCHS,
        curve=lambda params: float(params["model.x"]) * np.arange(1, EPOCHS + 1) / EPOCHS,
    )


def test_epochs_are_spent_to_the_last_and_booked_by_trial(scripts: list[Script]) -> None:
    found = fidelity(curved(), "script", 0, 6)
    assert found["epochs"] == sum(trial[0] for trial in found["trials"]) == 6 * EPOCHS
    assert [trial[0] for trial in found["trials"]] == [10, 4, 10, 4, 10, 4, 10, 4, 4]
    assert [trial[2] for trial in found["trials"]] == [True, False] * 4 + [False]
    assert [event[0] for event in scripts[0].events if event[0] in ("tell", "stop")] == ["tell", "stop"] * 4
    # Booked with the value it would have had at its last epoch.
    first, second = start_of(curved(), 0)[:2]
    assert [found["trials"][0][1], found["trials"][1][1]] == pytest.approx([first["model.x"], second["model.x"]])


def test_noise_is_in_what_is_reported_and_not_in_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, list[float]] = {"one": [], "other": []}

    class Listening(Script):
        """Keeps what is reported."""

        name = ""

        def report(self, trial: int, step: int, value: float) -> bool:
            shown[self.name].append(value)
            return super().report(trial, step, value)

    def make(name: str, setting: Setting) -> Script:
        made = Listening(setting)
        made.name = name
        return made

    monkeypatch.setattr(protocols, "make_method", make)
    found = [fidelity(curved(), name, 0, 6, noise_sd=0.05) for name in shown]
    clean = fidelity(curved(), "one", 0, 6)
    assert shown["one"][: len(shown["other"])] == shown["other"]
    noise = np.array(shown["other"]) - np.array(shown["one"][len(shown["other"]) :])
    assert 0.03 < np.std(noise) < 0.07
    assert [trial[1] for trial in found[0]["trials"]] == [trial[1] for trial in clean["trials"]]


def test_a_paused_trial_resumes_and_costs_only_the_remaining_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Waiting(Script):
        """Lets every trial wait at its fourth epoch until a second one has begun."""

        waiting: int | None = None

        def report(self, trial: int, step: int, value: float) -> bool:
            self.events.append(("report", trial, step))
            return step == 4

        def stop(self, trial: int) -> bool:
            self.waiting = trial
            return True

        def promoted(self) -> int | None:
            return self.waiting if self.count > 1 else None

        def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
            super().tell(trial, values, memory_gib)
            self.waiting = None

    made: list[Script] = []

    def make(name: str, setting: Setting) -> Script:
        made.append(Waiting(setting))
        return made[0]

    monkeypatch.setattr(protocols, "make_method", make)
    found = fidelity(curved(), "script", 0, 2)
    assert [(entry[0], entry[2], entry[3:]) for entry in found["trials"]] == [
        (4, False, []),
        (4, False, []),
        (6, True, [1]),
        (4, False, []),
        (2, False, [2]),
    ]
    reports = [event[2] for event in made[0].events if event[:2] == ("report", 1)]
    assert reports == list(range(1, EPOCHS + 1))


def test_trials_over_the_memory_fail_and_the_others_report_their_memory(scripts: list[Script]) -> None:
    problem = load_problem("memory")
    found = memory(problem, "script", 1, MEMORY_START + 3)
    fits = [problem.fits(params) for params in start_of(problem, 1, MEMORY_START)]
    assert [truth is not None for truth in found["truths"][:MEMORY_START]] == fits
    told = [event for event in scripts[0].events if event[0] == "tell"]
    failed = [event for event in scripts[0].events if event[0] == "fail"]
    assert all(0 < event[3] <= 24 for event in told)
    assert len(failed) == found["truths"].count(None)
    assert found["oom_after_start"] == found["truths"][MEMORY_START:].count(None)


@pytest.mark.parametrize("method", ["random", "tpe", "nsga2", "gp", "ours"])
@pytest.mark.parametrize("problem", ["conditional", "mixed10"])
def test_methods_begin_with_the_given_start_and_propose_valid_configurations(method: str, problem: str) -> None:
    loaded = load_problem(problem)
    spec, start = spec_of(loaded, trials=100), start_of(loaded, 2, 2)
    under_test = make_method(method, Setting(problem=loaded, seed=2, trials=100))
    rng = np.random.default_rng(0)
    for params in start:
        under_test.tell(under_test.attach(params), loaded.evaluate(params, rng))
    seen = []
    for _ in range(3):
        trial, params = under_test.ask()
        spec.check_params(params)
        under_test.tell(trial, loaded.evaluate(params, rng))
        seen.append(trial)
    assert seen == [2, 3, 4]
