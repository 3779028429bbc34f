"""Our optimizer, used as the service uses it: a study spec, `create_optimizer`, ask, report, tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.optimizer import create_optimizer
from hpo.optimizer.bayes.curves import outcomes
from hpo.optimizer.cube import key_of
from hpo.optimizer.memory import USABLE_MEMORY_SHARE
from hpo.results.outcome import MEMORY_METRIC
from hpo.spec import StudySpec
from hpo.trial import Decision, FailureKind, Params, ParamValue, Suggestion, TrialRecord, TrialState

from ..problems import Values
from ..study import metrics_of, spec_of
from .method import Origin, Setting


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
            early_stopping=_section(stopping, setting),
            constraints=constraints,
        )
        self._optimizer = create_optimizer(self._spec)
        self._origins: dict[int, Origin] = {}
        self._count = 0
        self._decision = Decision.CONTINUE

    def attach(self, params: Params) -> int:
        """Return the trial of a registered configuration."""
        self._optimizer.register(self._count, params)
        self._origins[self._count] = Origin(generator="attached", is_model=False)
        self._count += 1
        return self._count - 1

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        """Return a new registered trial and its configuration."""
        is_model = self._optimizer.uses_model
        (suggestion,) = self._optimizer.ask(1)
        self._optimizer.register(self._count, suggestion)
        self._origins[self._count] = _origin(suggestion, is_model=is_model)
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

    def stop(self, trial: int) -> bool:
        """Return whether the trial is paused rather than stopped, by the last decision, after recording it."""
        paused = self._decision is Decision.PAUSE
        if paused:
            self._optimizer.pause(trial)
        else:
            self._optimizer.stop(trial)
        return paused

    def fail(self, trial: int, kind: FailureKind = FailureKind.OOM) -> None:
        """Record that the trial failed."""
        self._optimizer.fail(trial, kind)

    def origin(self, trial: int) -> Origin:
        """Return the generator and its prediction."""
        return self._origins[trial]

    def beliefs(self) -> dict[int, tuple[float, float]]:
        """Return the predicted ends of the trials that were stopped, as the model is told them."""
        history = self._optimizer.history()
        metric = self._problem.objectives[0].metric
        believed = {key_of(found.params): (found.values[metric], found.sds[metric]) for found in outcomes(history)}
        stopped = [record for record in history.records if record.state is TrialState.STOPPED]
        return {record.id: believed[key_of(record.params)] for record in stopped if key_of(record.params) in believed}

    @property
    def spec(self) -> StudySpec:
        """The spec of the study."""
        return self._spec

    def records(self) -> list[TrialRecord]:
        """Return the trials of the study, as a store would."""
        return list(self._optimizer.history().records)

    def best(self) -> int | None:
        """Return the trial that stands for the best configuration."""
        return self._optimizer.best()


def _section(stopping: Mapping[str, Any] | None, setting: Setting) -> Mapping[str, Any]:
    """Return the early-stopping section of the spec."""
    if stopping is None:
        return {"name": "none"}
    # The rule `curves` judges by itself how early it can.
    return stopping if stopping["name"] == "curves" else {**stopping, "min_epochs": setting.min_epochs}


def _origin(suggestion: Suggestion, *, is_model: bool) -> Origin:
    return Origin(
        generator=suggestion.generator,
        is_model=is_model,
        mean=suggestion.predicted_mean,
        sd=suggestion.predicted_sd,
    )
