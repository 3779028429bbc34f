"""CPU time of one ask and one tell, all methods interleaved in one process with one thread.

Every method gets the same finished trials of a ten-dimensional mixed space; then the methods ask and tell in turns, so
that other load on the machine affects all alike. The mean over the turns is reported, because a method may refit its
model in some of them only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpo.trial import Params

from .methods import Method, Setting, make_method
from .problems import Problem
from .study import generator, start_of

COUNTS: Final = (100, 1000)
TURNS: Final[Mapping[int, int]] = {100: 10, 1000: 5}
METHODS_AT: Final[Mapping[int, Sequence[str]]] = {100: ("tpe", "ours", "gp", "ax"), 1000: ("tpe", "ours", "gp")}
"""At 1000 trials Ax is left out: it takes half a minute per suggestion, and no figure needs it."""


def latency(problem: Problem, names: Sequence[str], seed: int, count: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each turn of each method, beginning with `count` finished trials."""
    finished = start_of(problem, seed, count)
    methods = {name: _filled(problem, name, seed, finished) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    # Turn -1 is not counted: it has late imports and the first fit.
    for turn in range(-1, TURNS[count]):
        for name, method in methods.items():
            spent = _turn(problem, method, seed, count + turn + 1)
            if turn >= 0:
                seconds[name].append(spent)
    return seconds


def _filled(problem: Problem, name: str, seed: int, finished: Sequence[Params]) -> Method:
    method = make_method(name, Setting(problem=problem, seed=seed, trials=len(finished) + 100))
    for place, params in enumerate(finished):
        method.tell(method.attach(params), problem.evaluate(params, generator(problem, seed, "noise", place)))
    return method


def _turn(problem: Problem, method: Method, seed: int, place: int) -> float:
    started = time.process_time()
    trial, params = method.ask()
    asked = time.process_time() - started
    values: Any = problem.evaluate(params, generator(problem, seed, "noise", place))
    started = time.process_time()
    method.tell(trial, values)
    return asked + time.process_time() - started
