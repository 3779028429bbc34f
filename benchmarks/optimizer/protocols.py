"""The protocols: how a method is run on a problem. Each returns the data of a row.

    sequential    one trial after the other                     {values, truths}
    asynchronous  eight workers on a simulated clock            {values, truths}, in the order of finishing
    fidelity      epoch by epoch, a pruner may stop or pause    {trials: [epochs, final truth, completed], epochs}
    fidelity01, fidelity02, fidelity03    the same with normal noise of this sd (in hundredths) in every epoch
    memory        trials may run out of memory                  {truths (null: out of memory), oom_after_start}
    hypervolume   two objectives                                {losses}
    service12, service20, service40    asynchronous workers with early stopping, by epochs (see `service`)
    service20x4   the same with four workers
    failing       one trial after the other, in a space of which a third fails (see `service`)
    latency       CPU time of ask and tell (see `latency`)      {seconds}

`truths` are the mean outcomes of the configurations that were tried; `values` are the noisy outcomes that the method
received, left out if evaluations are deterministic. A trial that continued after a pause has one more entry, with the
epochs since the pause and, as a fourth element, the number of the trial. All methods of a seed share the start, and the
noise and duration of the n-th evaluation.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from hpo.trial import Params

from .methods import Method, Setting, make_method
from .problems import DEMOS, FAILING, FRONTS, LCBENCH, SINGLE, TRAINED, Problem, Values
from .service import as_row, simulate
from .study import generator, start_of

WORKERS: Final = 8
SEQUENTIAL_TRIALS: Final = 100
SLOW_TRIALS: Final = 50
"""Number of trials for Ax, because its fits take seconds."""
ASYNCHRONOUS_TRIALS: Final = 50
FRONT_TRIALS: Final = 60
FULL_TRIALS: Final = 60
"""The fidelity protocol spends the epochs of this many full-length trials."""
TRAININGS: Final = (12, 20, 40)
"""The budgets of the simulated service, in trainings' worth of epochs."""
FAILING_TRIALS: Final = 30
MEMORY_START: Final = 12
MEMORY_ASKED: Final = 32
_DURATION_SPREAD: Final = 0.5
"""Standard deviation of the logarithm of an evaluation's duration."""
_MAX_TRIALS: Final = 1000
NOISES: Final = {"fidelity01": 0.01, "fidelity02": 0.02, "fidelity03": 0.03}
"""The fidelity protocols with noise, and its standard deviation in each epoch."""


def sequential(problem: Problem, method_name: str, seed: int, trials: int) -> dict[str, Any]:
    """Return the outcomes of one trial after the other."""
    method = make_method(method_name, Setting(problem=problem, seed=seed, trials=trials))
    tried: list[Params] = []
    received: list[Values] = []
    for place, (trial, params) in enumerate(_begun(method, start_of(problem, seed), trials)):
        values = problem.evaluate(params, generator(problem, seed, "noise", place))
        method.tell(trial, values)
        tried.append(params)
        received.append(values)
    return _outcomes(problem, tried, received)


def asynchronous(problem: Problem, method_name: str, seed: int, trials: int) -> dict[str, Any]:
    """Return the outcomes of `trials` trials on eight workers that are always busy, in the order of finishing."""
    method = make_method(method_name, Setting(problem=problem, seed=seed, trials=trials))
    begun = enumerate(_begun(method, start_of(problem, seed), trials))
    running: list[tuple[float, int, int, Params]] = []
    tried: list[Params] = []
    received: list[Values] = []

    def begin(now: float) -> None:
        found = next(begun, None)
        if found is not None:
            place, (trial, params) = found
            heapq.heappush(running, (now + duration(problem, seed, place), place, trial, params))

    for _ in range(WORKERS):
        begin(0.0)
    while running:
        now, place, trial, params = heapq.heappop(running)
        values = problem.evaluate(params, generator(problem, seed, "noise", place))
        method.tell(trial, values)
        tried.append(params)
        received.append(values)
        begin(now)
    return _outcomes(problem, tried, received)


def duration(problem: Problem, seed: int, place: int) -> float:
    """Return the random duration of the evaluation `place`; the median is 1."""
    rng = generator(problem, seed, "duration", place)
    return float(rng.lognormal(0.0, _DURATION_SPREAD))


def fidelity(problem: Problem, method_name: str, seed: int, trials: int, *, noise_sd: float = 0.0) -> dict[str, Any]:
    """Return the trials of a run, epoch by epoch, until the epochs of `trials` full-length trials are spent.

    The noise of an epoch of the n-th trial of a seed is the same for all methods.
    """
    if problem.curve is None:
        raise ValueError(f"{problem.name} has no learning curves")
    budget = trials * problem.epochs
    method = make_method(method_name, Setting(problem=problem, seed=seed, trials=_MAX_TRIALS))
    begun = _begun(method, start_of(problem, seed), _MAX_TRIALS)
    curves: dict[int, list[float]] = {}
    truths: dict[int, float] = {}
    done: dict[int, int] = {}
    spent, found = 0, []
    while spent < budget:
        trial = method.promoted()
        if trial is None:
            if (new := next(begun, None)) is None:
                break
            trial, params = new
            clean = problem.curve(params)
            noise = noise_sd * generator(problem, seed, "epochs", trial).standard_normal(len(clean))
            curves[trial], truths[trial], done[trial] = (clean + noise).tolist(), _short(clean[-1]), 0
        before, curve = done[trial], curves[trial]
        done[trial], stopped = _train(method, trial, curve[: before + budget - spent], before)
        spent += done[trial] - before
        completed = not stopped and done[trial] == problem.epochs
        found.append([done[trial] - before, truths[trial], completed, *([trial] if before else [])])
        if spent >= budget:
            break
        if stopped:
            method.stop(trial)
        else:
            method.tell(trial, (curve[-1],))
    return {"trials": found, "epochs": spent}


def _train(method: Method, trial: int, curve: Sequence[float], done: int) -> tuple[int, bool]:
    """Return the epochs done after reporting a curve from `done` on, and whether the method stopped it there."""
    for step, value in enumerate(curve[done:], start=done + 1):
        if method.report(trial, step, value) and step < len(curve):
            return step, True
    return len(curve), False


def memory(problem: Problem, method_name: str, seed: int, trials: int) -> dict[str, Any]:
    """Return the outcomes of one trial after the other; configurations that do not fit into memory fail."""
    if problem.memory_gib is None:
        raise ValueError(f"{problem.name} has no memory model")
    start = start_of(problem, seed, MEMORY_START)
    method = make_method(method_name, Setting(problem=problem, seed=seed, trials=trials))
    truths: list[float | None] = []
    for place, (trial, params) in enumerate(_begun(method, start, trials)):
        if problem.fits(params):
            values = problem.evaluate(params, generator(problem, seed, "noise", place))
            method.tell(trial, values, memory_gib=problem.memory_gib(params))
            truths.append(_short(problem.true(params)[0]))
        else:
            method.fail(trial)
            truths.append(None)
    return {"truths": truths, "oom_after_start": sum(truth is None for truth in truths[MEMORY_START:])}


def hypervolume_run(problem: Problem, method_name: str, seed: int, trials: int) -> dict[str, Any]:
    """Return the mean losses of one trial after the other, with two objectives."""
    found = sequential(problem, method_name, seed, trials)
    return {"losses": [[_short(value) for value in row] for row in problem.losses(found["truths"]).tolist()]}


def service(problem: Problem, method_name: str, seed: int, trials: int, *, workers: int = 2) -> dict[str, Any]:
    """Return a run of the simulated service with the epochs of `trials` trainings."""
    return as_row(simulate(problem, method_name, seed, workers=workers, trainings=trials))


def failing(problem: Problem, method_name: str, seed: int, trials: int) -> dict[str, Any]:
    """Return a run of the simulated service with one worker and `trials` trials, of which some fail."""
    return as_row(simulate(problem, method_name, seed, workers=1, trials=trials))


def _begun(method: Method, start: Sequence[Params], trials: int) -> Any:
    """Yield the trials of the start, then those that the method proposes; each begins only when it is needed."""
    for place in range(trials):
        yield (method.attach(start[place]), start[place]) if place < len(start) else method.ask()


def _outcomes(problem: Problem, tried: Sequence[Params], received: Sequence[Values]) -> dict[str, Any]:
    found: dict[str, Any] = {"truths": _rounded(problem.truth(tried).tolist())}
    if problem.noise is not None:
        found["values"] = _rounded(received)
    return found


def _rounded(rows: Sequence[Sequence[float]]) -> list[Any]:
    short = [[_short(value) for value in row] for row in rows]
    return [row[0] for row in short] if short and len(short[0]) == 1 else short


def _short(value: float) -> float:
    """Return a number with seven digits, so that files stay small."""
    return float(f"{value:.7g}")


Protocol = Callable[[Problem, str, int, int], dict[str, Any]]
PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "sequential": sequential,
    "asynchronous": asynchronous,
    "fidelity": fidelity,
    **{name: partial(fidelity, noise_sd=noise_sd) for name, noise_sd in NOISES.items()},
    "memory": memory,
    "hypervolume": hypervolume_run,
    **{f"service{trainings}": service for trainings in TRAININGS},
    "service20x4": partial(service, workers=4),
    "failing": failing,
}
PROBLEMS_OF: Final[Mapping[str, Sequence[str]]] = {
    "sequential": SINGLE,
    "asynchronous": SINGLE,
    **dict.fromkeys(("fidelity", *NOISES), LCBENCH),
    "memory": ("memory",),
    "hypervolume": FRONTS,
    **{f"service{trainings}": (*TRAINED, *DEMOS) for trainings in TRAININGS},
    "service20x4": (*TRAINED, *DEMOS),
    "failing": FAILING,
    "latency": ("mixed10",),
}


_TRIALS: Final[Mapping[str, int]] = {
    "asynchronous": ASYNCHRONOUS_TRIALS,
    **dict.fromkeys(("fidelity", *NOISES), FULL_TRIALS),
    "hypervolume": FRONT_TRIALS,
    **{f"service{trainings}": trainings for trainings in TRAININGS},
    "service20x4": 20,
    "failing": FAILING_TRIALS,
}


def trials_of(protocol: str, method: str) -> int:
    """Return the number of trials of a run."""
    if protocol == "sequential":
        return SLOW_TRIALS if method == "ax" else SEQUENTIAL_TRIALS
    if protocol == "memory":
        return MEMORY_START + MEMORY_ASKED
    return _TRIALS[protocol]
