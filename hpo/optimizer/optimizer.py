"""The optimizer of one study: remembers trials, proposes configurations, decides about early stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import Final

from ..early_stopping import decide
from ..errors import NotFoundError
from ..outcomes import final_metrics
from ..spec import StudySpec
from ..trial import Decision, FailureKind, Metrics, Params, Suggestion, TrialRecord, TrialState
from .cube import varies
from .generator import Generator, GeneratorError
from .history import History
from .sobol import sobol_generator

MODEL_FREE: Final = frozenset({"sobol", "random"})
"""Optimizers that learn nothing from results: no start-up, and nothing to plan again."""

logger = logging.getLogger(__name__)


class Optimizer:
    """Proposes configurations for a study. No database, no threads, no clock.

    Trials are known by ids of the caller's choice. Everything proposed is a function of the spec and of what is
    known about the trials: an optimizer rebuilt with `replay` proposes what the old one would have proposed.
    """

    def __init__(self, spec: StudySpec, make_generator: Callable[[], Generator]) -> None:
        """Use what `make_generator` makes after the start-up; it is called when first needed (Ax is slow to import)."""
        self.spec = spec
        self._make_generator = make_generator
        self._is_model = spec.optimizer.name not in MODEL_FREE
        self._startup = sobol_generator()
        self._fallback = sobol_generator(f"sobol (instead of {spec.optimizer.name})")
        self._records: dict[int, TrialRecord] = {}

    # ---------------------------------------------------------------- proposing

    def ask(self, n: int = 1) -> list[Suggestion]:
        """Propose `n` configurations, different from each other and from all that is known while the space has more.

        Nothing is remembered of them: `register` those that are taken up.
        """
        history = self.history()
        startup = min(n, self.startup_left)
        found = self._startup.propose(history, startup) if startup else []
        while len(found) < n:
            found += self._propose(history.extended(found), n - len(found))
        return found

    @property
    def startup_left(self) -> int:
        """How many of the next proposals are quasi-random; without end while too little is measured for a model."""
        if not self._is_model:
            return 0
        history, startup = self.history(), startup_trials(self.spec)
        if history.measured < min(startup, max(2, math.ceil(startup / 2))):
            return 2**31
        return max(0, startup - history.planned)

    @property
    def uses_model(self) -> bool:
        """Whether the next proposal comes from a model, so that a new result is a reason to propose again."""
        return self._is_model and self.startup_left == 0

    def prepare(self) -> None:
        """Import what the generator needs now, rather than at the first proposal after the start-up."""
        _ = self._generator

    def quick(self, n: int = 1) -> list[Suggestion]:
        """Propose without a model, at once: for a worker that would otherwise wait for a long fit."""
        return self._fallback.propose(self.history(), n)

    @cached_property
    def _generator(self) -> Generator:
        return self._make_generator()

    def _propose(self, history: History, n: int) -> list[Suggestion]:
        """Ask the generator; the fallback when it fails, so that no worker ever waits for want of a model."""
        try:
            found = self._generator.propose(history, n)[:n]
            for suggestion in found:
                self.spec.check_params(suggestion.params)
        except (GeneratorError, ValueError) as error:
            logger.warning("study %s: %s; proposing from a Sobol sequence instead", self.spec.name, error)
            found = []
        return found or self._fallback.propose(history, n)

    # ---------------------------------------------------------------- learning

    def register(self, id: int, suggestion: Suggestion | Params) -> None:
        """Remember that a configuration is going to be tried, as trial `id`."""
        if not isinstance(suggestion, Suggestion):
            suggestion = Suggestion(params=suggestion, generator="manual")
        self.spec.check_params(suggestion.params)
        self._records[id] = TrialRecord(
            id=id,
            number=self._records[id].number if id in self._records else len(self._records),
            state=TrialState.SUGGESTED,
            params=suggestion.params,
            generator=suggestion.generator,
            predicted_mean=suggestion.predicted_mean,
            predicted_sd=suggestion.predicted_sd,
        )

    def report(self, id: int, step: int, metrics: Metrics) -> Decision:
        """Take in the metrics after `step` epochs and say whether the trial goes on."""
        record = self._record(id)
        record = replace(record, state=TrialState.RUNNING, curve={**record.curve, step: metrics}, epochs_done=step)
        self._records[id] = record
        return decide(self.spec, record, list(self._records.values()))

    def tell(self, id: int, metrics: Metrics) -> None:
        """Take in the final metrics of a trial that ran to its end; not finite counts as diverged."""
        if any(not math.isfinite(value) for value in metrics.values()):
            self.fail(id, FailureKind.DIVERGED)
        else:
            self._records[id] = replace(self._record(id), state=TrialState.COMPLETED, metrics=metrics)

    def stop(self, id: int, metrics: Metrics | None = None) -> None:
        """Take in that a trial was stopped early; without metrics its last report stands."""
        record = self._record(id)
        kept = final_metrics(record) if metrics is None else metrics
        self._records[id] = replace(record, state=TrialState.STOPPED, metrics=kept)

    def fail(self, id: int, kind: FailureKind) -> None:
        """Take in that a trial failed: its configuration is not proposed again."""
        self._records[id] = replace(
            self._record(id), state=TrialState.FAILED, failure_kind=FailureKind(kind), metrics=None
        )

    def forget(self, id: int) -> None:
        """Drop a trial that was withdrawn before it ran."""
        self._record(id)
        del self._records[id]

    def replay(self, records: Iterable[TrialRecord]) -> None:
        """Replace everything known by `records`."""
        self._records = {record.id: record for record in records}

    def history(self) -> History:
        """Give what is known, as generators read it."""
        return History(self.spec, self._records.values())

    def _record(self, id: int) -> TrialRecord:
        if id not in self._records:
            raise NotFoundError(f"the optimizer knows no trial {id}; register it first")
        return self._records[id]


def startup_trials(spec: StudySpec) -> int:
    """Give the number of quasi-random trials before a model takes over.

    `auto` is half the number of parameters that vary and at least 5, but leaves a small study two thirds of its
    trials for the model.
    """
    if spec.optimizer.startup_trials != "auto":
        return spec.optimizer.startup_trials
    wanted = max(5, math.ceil(sum(varies(parameter) for parameter in spec.space.values()) / 2))
    return wanted if spec.budget.trials is None else min(wanted, max(3, spec.budget.trials // 3))
