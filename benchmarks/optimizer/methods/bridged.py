"""Peers in an environment of their own, driven through pipes: see `peers_bridge` and `peers.txt`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final, Literal

from hpo.optimizer.cube import grid_size, grid_value
from hpo.spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter
from hpo.trial import FailureKind, Params, ParamValue

from ..problems import Problem, ProblemMissing, Values
from ..study import spec_of
from .method import Origin, Setting

PROGRAM: Final = Path(__file__).resolve().parents[1] / "peers_bridge.py"
PYTHON: Final = PROGRAM.parents[2] / ".venv-peers" / "bin" / "python"


class Bridged:
    """One optimizer in a process of its own, which ends with this object."""

    def __init__(self, setting: Setting, *, peer: Literal["smac", "cqr"]) -> None:
        """Start the process.

        Raises:
            ProblemMissing: the environment of the peers is not installed.
        """
        if not PYTHON.exists():
            raise ProblemMissing(f"{PYTHON} is not there: install peers.txt as benchmarks/optimizer/README.md says")
        self._name = peer
        self._problem = setting.problem
        self._spec = spec_of(setting.problem, trials=1)
        self._sign = float(setting.problem.signs[0])
        self._params: dict[int, dict[str, ParamValue]] = {}
        self._modelled: set[int] = set()
        self._next: int | None = None
        self._pauses = False
        # A peer may fit on several threads, and would then be measured against the load of the machine.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [PYTHON, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self._call(
            "start", peer=peer, space=space_of(setting.problem), seed=setting.seed, epochs=setting.problem.epochs,
            min_epochs=setting.min_epochs, trainings=setting.trials,
        )  # fmt: skip

    def attach(self, params: Params) -> int:
        """Raise NotImplementedError: these peers begin with their own start."""
        raise NotImplementedError(f"{self._name} cannot be given its first trials here")

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        """Return a new trial and its configuration."""
        trial = self._next if self._next is not None else self._asked()
        self._next = None
        return trial, self._params[trial]

    def report(self, trial: int, step: int, value: float) -> bool:
        """Return whether the trial stops or pauses after this epoch."""
        decision = self._call("report", trial=trial, step=step, loss=self._sign * value)
        self._pauses = decision == "pause"
        return bool(decision != "continue")

    def promoted(self) -> int | None:
        """Return a paused trial that continues; if the peer wants a new one, that is kept for `ask`."""
        if self._next is None:
            known = len(self._params)
            trial = self._asked()
            if trial < known:
                return trial
            self._next = trial
        return None

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        """Record the outcome."""
        self._call("tell", trial=trial, loss=self._sign * values[0])

    def stop(self, trial: int) -> bool:
        """Return whether the trial is paused; the peer knows, since it decided."""
        return self._pauses

    def fail(self, trial: int, kind: FailureKind = FailureKind.OOM) -> None:
        """Record that the trial failed."""
        self._call("fail", trial=trial)

    def origin(self, trial: int) -> Origin:
        """Return the peer, and whether a model chose the trial, if it says so."""
        return Origin(generator=self._name, is_model=trial in self._modelled)

    def beliefs(self) -> dict[int, tuple[float, float]]:
        """Return nothing: what it believes is not known."""
        return {}

    def best(self) -> None:
        """Return None: the best observed trial."""

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self.close()

    def _asked(self) -> int:
        trial, values, is_model = self._call("ask")
        flat = {
            key: _decoded(parameter, values[str(place)])
            for place, (key, parameter) in enumerate(self._problem.space.items())
            if str(place) in values
        }
        self._params.setdefault(trial, self._spec.active(flat))
        if is_model:
            self._modelled.add(trial)
        return int(trial)

    def _call(self, call: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101 - both are pipes
        self._process.stdin.write(json.dumps({"call": call, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended in `{call}`")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self._name} failed in `{call}`: {reply['error']}")
        return reply["answer"]


def space_of(problem: Problem) -> list[dict[str, Any]]:
    """Return the space as the bridge reads it: choices as places in their list, conditions by places too."""
    places = {key: place for place, key in enumerate(problem.space)}
    found = []
    for parameter in problem.space.values():
        when = []
        for parent, values in parameter.when.items():
            listed = problem.space[parent]
            if not isinstance(listed, CategoricalParameter | OrdinalParameter):
                raise ValueError(f"{problem.name}: a condition on the range {parent} is not supported")
            when.append([places[parent], [listed.choices.index(value) for value in values]])
        found.append({**_described(parameter), "when": when})
    return found


def _described(parameter: AnyParameter) -> dict[str, Any]:
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return {"type": parameter.type, "size": len(parameter.choices)}
    if isinstance(parameter, FloatParameter) and parameter.step is not None:
        return {"type": "ordinal", "size": grid_size(parameter)}
    if isinstance(parameter, IntParameter) and parameter.step not in (None, 1):
        return {"type": "ordinal", "size": grid_size(parameter)}
    return {"type": parameter.type, "low": parameter.low, "high": parameter.high, "log": parameter.log}


def _decoded(parameter: AnyParameter, value: Any) -> ParamValue:
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return parameter.choices[int(value)]
    if _described(parameter)["type"] == "ordinal":
        return grid_value(parameter, int(value))
    number = int(value) if isinstance(parameter, IntParameter) else float(value)
    return min(max(number, parameter.low), parameter.high)
