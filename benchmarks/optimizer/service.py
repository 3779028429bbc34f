"""The protocol that resembles the job: asynchronous workers train on a simulated clock, and trials are stopped early.

As in the service, a free worker gets a proposal at once; every epoch is reported to the method in the order of
simulated time, with the noise of its validation; what the method decides about the trial is obeyed; a training may
fail. The budget is a number of epochs: that of N trainings to their end. With early stopping it is enough for more than
N trials. A trial begins only if its last epoch is within the budget, also where all others run to their end.

The data of a row (`as_row`):

    trials   one entry for each trial, in the order of their begin: see `Trial.entry`
    exported the trial that would be exported in the end
    epochs   epochs trained
    seconds  simulated time of the whole run

The noise and the durations of the n-th trial are the same for all methods. Every method begins with its own start.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hpo.spec import CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter
from hpo.trial import FailureKind, ParamValue

from .methods import Method, Origin, Setting, make_method
from .problems import Problem
from .problems.training import Training
from .study import generator

WORKERS: Final = 2
MIN_EPOCHS_SHARE: Final = 1 / 3
"""Rules that compare trials at an epoch stop none before this share of the epochs, as in the demo."""

WIDE: Final = 7
"""An integer parameter with a range below this is at a bound so often by chance that walls are not counted."""

State = Literal["running", "completed", "stopped", "paused", "failed"]


@dataclass(slots=True, kw_only=True)
class Trial:
    """One trial of a run."""

    number: int
    id: int
    """The number that the method gave it."""
    params: dict[str, ParamValue]
    origin: Origin
    training: Training
    truth: float
    end: float
    """The mean of the last value that a training of this configuration reports."""
    began: float
    """Simulated time in seconds."""
    epochs: int = 0
    state: State = "running"
    ended: float = math.nan
    believed: tuple[float, float] | None = None
    """The mean and sd that the method believes in, when the run is over, for the end of a trial that was stopped."""

    @property
    def observed(self) -> float | None:
        """The last value that it reported."""
        return self.training.values[self.epochs - 1] if self.epochs else None

    def entry(self, problem: Problem) -> list[Any]:
        """Return its fields for a row.

        Generator, is model, epochs, state, truth, observed, predicted mean and sd, second of its end, walls,
        parameters, believed, mean end.
        """
        origin = self.origin
        return [
            origin.generator,
            origin.is_model,
            self.epochs,
            self.state,
            _short(self.truth),
            _short(self.observed),
            _short(origin.mean),
            _short(origin.sd),
            None if math.isnan(self.ended) else round(self.ended, 1),
            walls(problem, self.params),
            [_short(self.params.get(key)) for key in problem.space],
            None if self.believed is None else [_short(value) for value in self.believed],
            _short(self.end),
        ]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run: a trial begins, reports an epoch, or ends in some state."""

    time: float
    what: str
    trial: int
    epoch: int


@dataclass(kw_only=True)
class Simulation:
    """A run of a method on a problem, until its budget is spent."""

    problem: Problem
    method: Method
    seed: int
    workers: int = WORKERS
    trials_limit: int | None = None
    """The most trials that begin."""
    epochs_limit: int | None = None
    """The most epochs that are trained."""
    trials: list[Trial] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    spent: int = 0
    now: float = 0.0
    _queue: list[tuple[float, int, int]] = field(default_factory=list)
    """(time, order, trial number) of the next epoch, or failure, of each trial that trains."""
    _order: int = 0

    def run(self) -> None:
        """Run until nothing trains and nothing more may begin."""
        self._fill()
        while self._queue:
            self.now, _, number = heapq.heappop(self._queue)
            self._epoch(self.trials[number])
            self._fill()
        beliefs = self.method.beliefs()
        for trial in self.trials:
            trial.believed = beliefs.get(trial.id)

    def _fill(self) -> None:
        """Give work to every free worker, while the budget lasts."""
        while len(self._queue) < self.workers:
            number = self._promoted()
            if number is None:
                number = self._begun()
            if number is None:
                return
            self._schedule(self.trials[number])

    def _promoted(self) -> int | None:
        waiting = any(trial.state == "paused" for trial in self.trials)
        found = self.method.promoted() if waiting else None
        if found is None:
            return None
        trial = next(trial for trial in self.trials if trial.id == found)
        if not self._affords(self.problem.epochs - trial.epochs):
            return None
        trial.state = "running"
        self._note("resumes", trial)
        return trial.number

    def _begun(self) -> int | None:
        number = len(self.trials)
        if number == self.trials_limit or not self._affords(self.problem.epochs):
            return None
        if self.problem.training is None:
            raise ValueError(f"{self.problem.name} has no simulated trainings")
        id, params = self.method.ask()
        training = self.problem.training(params, generator(self.problem, self.seed, "noise", number))
        truth = self.problem.true(params)[0]
        end = truth if self.problem.end is None else self.problem.end(params)
        trial = Trial(
            number=number, id=id, params=params, origin=self.method.origin(id), training=training,
            truth=truth, end=end, began=self.now,
        )  # fmt: skip
        self.trials.append(trial)
        self._note("begins", trial)
        return number

    def _affords(self, epochs: int) -> bool:
        """Return whether so many epochs are left when all that trains runs to its end."""
        committed = sum(self.problem.epochs - self.trials[number].epochs for _, _, number in self._queue)
        return self.epochs_limit is None or self.spent + committed + epochs <= self.epochs_limit

    def _schedule(self, trial: Trial) -> None:
        heapq.heappush(self._queue, (self.now + trial.training.seconds[trial.epochs], self._order, trial.number))
        self._order += 1

    def _epoch(self, trial: Trial) -> None:
        """Let an epoch of a trial end, or its failure happen."""
        if trial.epochs == len(trial.training.values):
            assert trial.training.failure is not None  # noqa: S101 - Training promises it
            self._end(trial, "failed")
            return
        trial.epochs += 1
        self.spent += 1
        self._note("reports", trial)
        value = trial.training.values[trial.epochs - 1]
        stopped = self.method.report(trial.id, trial.epochs, value)
        if trial.epochs == self.problem.epochs:
            self._end(trial, "completed")
        elif stopped:
            self._end(trial, "stopped")
        else:
            self._schedule(trial)

    def _end(self, trial: Trial, state: State) -> None:
        match state:
            case "completed":
                self.method.tell(trial.id, (trial.training.values[-1],))
            case "failed":
                self.method.fail(trial.id, trial.training.failure or FailureKind.ERROR)
            case "stopped":
                # A method that promotes trials later pauses them instead.
                state = "paused" if self.method.stop(trial.id) else "stopped"
        trial.state, trial.ended = state, self.now
        self._note(state, trial)

    def exported(self) -> int | None:
        """Return the number of the trial that would be exported; None before the first has an outcome."""
        chosen = self.method.best()
        if chosen is not None:
            return next(trial.number for trial in self.trials if trial.id == chosen)
        sign = float(self.problem.signs[0])
        completed = [trial for trial in self.trials if trial.state == "completed"]
        shown = completed or [trial for trial in self.trials if trial.state == "stopped"]
        return min(shown, key=lambda trial: sign * (trial.observed or 0.0)).number if shown else None

    def _note(self, what: str, trial: Trial) -> None:
        self.events.append(Event(self.now, what, trial.number, trial.epochs))


def simulate(
    problem: Problem, method: str, seed: int, *, workers: int = WORKERS, trials: int | None = None,
    trainings: int | None = None,
) -> Simulation:  # fmt: skip
    """Return a finished run, limited to a number of trials, or to the epochs of a number of trainings, or both."""
    least = max(1, round(MIN_EPOCHS_SHARE * problem.epochs))
    planned = min(count for count in (trials, trainings) if count is not None)
    setting = Setting(problem=problem, seed=seed, trials=planned, min_epochs=least)
    found = Simulation(
        problem=problem, method=make_method(method, setting), seed=seed, workers=workers, trials_limit=trials,
        epochs_limit=None if trainings is None else trainings * problem.epochs,
    )  # fmt: skip
    found.run()
    return found


def as_row(found: Simulation) -> dict[str, Any]:
    """Return the data of the row of a run."""
    return {
        "trials": [trial.entry(found.problem) for trial in found.trials],
        "exported": found.exported(),
        "epochs": found.spent,
        "seconds": round(found.now, 1),
    }


def walls(problem: Problem, params: dict[str, ParamValue]) -> list[int]:
    """Return how many floats and wide integer ranges are at a bound, and how many there are."""
    at = [
        params[key] in (parameter.low, parameter.high)
        for key, parameter in problem.space.items()
        if key in params and not isinstance(parameter, CategoricalParameter | OrdinalParameter) and _is_wide(parameter)
    ]
    return [sum(at), len(at)]


def _is_wide(parameter: FloatParameter | IntParameter) -> bool:
    return isinstance(parameter, FloatParameter) or parameter.high - parameter.low >= WIDE


def _short(value: ParamValue | None) -> ParamValue | None:
    """Return a number with five digits, so that files stay small."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
