"""Our optimizer, used as the service uses it: a study spec, `create_optimizer`, ask, report, tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.optimizer import create_optimizer
from hpo.optimizer.memory import USABLE_MEMORY_SHARE
from hpo.results.outcome import MEMORY_METRIC
from hpo.trial import Decision, FailureKind, Params, ParamValue

from ..problems import Values
from ..study import metrics_of, spec_of
from .method import Setting


class Ours:
    """Our optimizer; `optimizer` is its name in the spec, and `stopping` the early-stopping section."""

    def __init__(self, setting: Setting, *, optimizer: str, stopping: Mapping[str, Any] | None = None) -> None:
        problem = setting.problem
        constraints = []
        if problem.capacity_gib is not None:
            constraints = [f"{MEMORY_METRIC} <= {USABLE_MEMORY_SHARE * problem.capacity_gib:g}"]
        self._problem = problem
        self._spec = spec_of(
            problem,
            trials=setting.trials,
            seed=setting.seed,
            optimizer={"name": optimizer, "seed": setting.seed},
            early_stopping=stopping or {"name": "none"},
            constraints=constraints,
        )
        self._optimizer = create_optimizer(self._spec)
        self._count = 0
        self._decision = Decision.CONTINUE

    def attach(self, params: Params) -> int:
        """Return the trial of a registered configuration."""
        self._optimizer.register(self._count, params)
        self._count += 1
        return self._count - 1

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        """Return a new registered trial and its configuration."""
        (suggestion,) = self._optimizer.ask(1)
        self._optimizer.register(self._count, suggestion)
        self._count += 1
        return self._count - 1, dict(suggestion.params)

    def report(self, trial: int, step: int, value: float) -> bool:
        """Return whether the trial stops or pauses, after reporting an epoch."""
        self._decision = self._optimizer.report(trial, step, {self._problem.objectives[0].metric: value})
        return self._decision is not Decision.CONTINUE

    def promoted(self) -> int | None:
        """Return the first paused trial that the rule promotes."""
        return next(iter(self._optimizer.promotions()), None)

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        """Record the final metrics."""
        metrics = dict(metrics_of(self._problem, values))
        if memory_gib is not None:
            metrics[MEMORY_METRIC] = memory_gib
        self._optimizer.tell(trial, metrics)

    def stop(self, trial: int) -> None:
        """Record that the trial is paused or stopped, by the last decision."""
        if self._decision is Decision.PAUSE:
            self._optimizer.pause(trial)
        else:
            self._optimizer.stop(trial)

    def fail(self, trial: int) -> None:
        """Record that the trial ran out of memory."""
        self._optimizer.fail(trial, FailureKind.OOM)
