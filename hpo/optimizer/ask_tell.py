"""The optimizer of one study: remembers trials, proposes configurations, decides about early stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Final

from ..answer import answer
from ..errors import NotFoundError
from ..results.outcome import final_metrics, settled
from ..results.warm_start import best_of
from ..spec import StudySpec
from ..spec.configurations import count_configurations
from ..stopping.decide import decide, promotions
from ..trial import (
    ENQUEUED,
    Decision,
    EarlierTrial,
    FailureKind,
    Metrics,
    Params,
    Suggestion,
    TrialRecord,
    TrialState,
)
from .bayes.runnability import runnability
from .cube import ParamsKey, key_of, varies
from .generator import Batcher, Completer, Generator, GeneratorError
from .guess import completed, leaves_open
from .history import History, Runnability
from .keeping import nearest_allowed
from .memory import Fleet, MemoryModel, device_bytes_for, with_memory_limit
from .prior import has_prior, prior_generator
from .sobol import sobol_generator

Propose = Callable[[History, int], list[Suggestion]]
MAX_RETRIES: Final = 10
"""How many times proposals that would not fit the memory, or clearly fail otherwise, are replaced by others."""
FALLBACK_POINTS: Final = 128
"""After those retries, the first that fits and may run of this many points of the Sobol sequence is taken."""
MODEL_FREE_OPTIMIZERS: Final = frozenset({"sobol", "random"})
"""Optimizers that learn nothing from results: they have no start-up and never need to plan again."""

logger = logging.getLogger(__name__)


class Optimizer:
    """Proposes configurations for a study. It uses no database, no threads and no clock.

    The caller chooses the ids of trials. Every proposal is a function of the spec and of the trial records: an
    optimizer rebuilt with `replay` proposes what the old one would have proposed.
    """

    def __init__(
        self,
        spec: StudySpec,
        make_generator: Callable[[], Generator],
        *,
        fleet: Fleet | None = None,
        guesses: Sequence[Params] | None = None,
        earlier: Sequence[EarlierTrial] = (),
    ) -> None:
        """Set up the study; `make_generator` is called when the generator is first needed (Ax is slow to import).

        `fleet` describes the devices, so that no configuration is proposed that fits none of them. `guesses` are tried
        before anything else, in their order (None: those of the spec). `earlier` are trials of other studies
        (`hpo.results.warm_start`): the best of each study is tried during the start-up, and shortens it by one trial.
        """
        self.spec = spec
        self._fleet = fleet or Fleet()
        self._memory_model: MemoryModel | None = None
        self._runnability: Runnability | None = None
        self._is_runnability_known = False
        self._make_generator = make_generator
        self._is_model = spec.optimizer.name not in MODEL_FREE_OPTIMIZERS
        self._startup = prior_generator() if has_prior(spec) else sobol_generator()
        self._fallback = sobol_generator(f"sobol (instead of {spec.optimizer.name})")
        self._guesses = list(spec.optimizer.enqueue if guesses is None else guesses)
        self._earlier = tuple(earlier)
        self._records: dict[int, TrialRecord] = {}

    # ---------------------------------------------------------------- proposing

    def ask(self, n: int = 1, *, at_once: bool = False) -> list[Suggestion]:
        """Return `n` proposals, all different and new; fewer once every configuration of a finite space was tried.

        Guesses come first, unchanged. Proposals are not remembered: `register` those that become trials.

        Args:
            at_once: for trials that are over sooner than one is planned: up to `n` of one fit of the models. The first
                is as thorough as always, the others are the best of functions drawn from the models.
        """
        history, memory = self.history(), self._memory()
        found = self.enqueued(n)
        n = self._at_most(n, history, found)
        startup = min(n - len(found), max(0, self.startup_left - len(found)))
        if startup > 0:
            found += self._accepted(memory, history.extended(found), startup, self._start)
        if at_once and len(found) < n:
            return found + self._accepted(memory, history.extended(found), n - len(found), self._propose_at_once)
        while len(found) < n:
            found += self._accepted(memory, history.extended(found), n - len(found), self._propose)
        return found

    @property
    def is_used_up(self) -> bool:
        """Whether every configuration of the space is that of a trial; only guesses can still be proposed."""
        return self._at_most(1, self.history(), []) == 0

    def _at_most(self, n: int, history: History, found: Sequence[Suggestion]) -> int:
        """Return how many of `n` proposals there can be, those included that were found already."""
        count = count_configurations(self.spec)
        # Most spaces are infinite, or far larger than the number of trials; of an empty one, proposing says so.
        if not count or count >= len(history.records) + n:
            return n
        taken = history.extended(found).taken
        left = count - sum(self.spec.allows(dict(key)) for key in taken)
        return min(n, len(found) + max(left, 0))

    @property
    def startup_left(self) -> int:
        """The number of next proposals that are quasi-random; 2**31 until enough is measured for a model."""
        if not self._is_model:
            return 0
        history, startup = self.history(), startup_trials(self.spec, earlier=len(self._earlier))
        if history.measured < min(startup, max(2, math.ceil(startup / 2))):
            return 2**31
        return max(0, startup - history.planned)

    @property
    def uses_model(self) -> bool:
        """Whether the next proposal comes from a model, so that a new result is a reason to propose again."""
        return self._is_model and self.startup_left == 0

    def quick(self, n: int = 1) -> list[Suggestion]:
        """Return `n` proposals without fitting a model, for a worker that would otherwise wait for a long fit.

        Fewer as in `ask`.
        """
        found = self.enqueued(n, with_model=False)
        n = self._at_most(n, self.history(), found)
        if len(found) < n:
            history = self.history().extended(found)
            found += self._accepted(self._memory(), history, n - len(found), self._fallback.propose)
        return found

    def enqueued(self, n: int = 1, *, with_model: bool = True) -> list[Suggestion]:
        """Return the next `n` guesses that have not become trials; fewer when fewer are left.

        Parameters that a guess does not fix are chosen by the model once there is one, unless `with_model` is false.
        The k-th trial of the generator `enqueued` is the k-th guess, so only the trials need to be remembered.
        """
        memory, history = self._memory(), self.history()
        tried = sum(record.generator == ENQUEUED for record in self._records.values())
        found: list[Suggestion] = []
        for guess in self._guesses[tried : tried + n]:
            known = history.extended(found)
            suggestion = self._completed(known, guess) if with_model else completed(known, guess)
            # A person asked for it, so it is tried even if it is expected to fit no device.
            found.append(_routed(memory, suggestion) if memory.fits(suggestion.params) else suggestion)
        return found

    def _completed(self, history: History, guess: Params) -> Suggestion:
        if self.uses_model and leaves_open(self.spec, guess) and isinstance(self._generator, Completer):
            try:
                found = self._generator.complete(history, guess)
                if self.spec.allows(found.params):
                    return replace(found, generator=ENQUEUED)
            except GeneratorError as error:
                logger.warning("study %s: %s; completing a guess from a Sobol sequence", self.spec.name, error)
        return completed(history, guess)

    def expects_to_fit(self, params: Params) -> bool:
        """Return whether a configuration is expected to fit the largest device."""
        return self._memory().fits(params)

    def expects_to_run(self, params: Params) -> bool:
        """Return whether a configuration lies outside of where trials clearly fail."""
        runs = self.history().runnability
        return runs is None or not runs.clearly_fails(params)

    def _accepted(self, memory: MemoryModel, history: History, n: int, propose: Propose) -> list[Suggestion]:
        """Return 1 to `n` proposals that are expected to fit and to run; after some retries, the nearest to that."""
        runs = history.runnability

        def is_accepted(suggestion: Suggestion) -> bool:
            return memory.fits(suggestion.params) and not (runs and runs.clearly_fails(suggestion.params))

        def distance(suggestion: Suggestion) -> tuple[float, float]:
            fits, demand = memory.fits(suggestion.params), memory.predict_gib(suggestion.params)
            return 0.0 if fits else demand or 0.0, 1.0 - runs.of(suggestion.params) if runs else 0.0

        rejected: dict[ParamsKey, float | None] = {}
        nearest: list[Suggestion] = []
        for _ in range(MAX_RETRIES):
            found = propose(history.without(rejected) if rejected else history, n)
            accepted = [suggestion for suggestion in found if is_accepted(suggestion)]
            if accepted:
                return [_routed(memory, suggestion) for suggestion in accepted]
            for suggestion in found:
                fits = memory.fits(suggestion.params)
                rejected[key_of(suggestion.params)] = None if fits else memory.predict_gib(suggestion.params) or 0.0
            nearest += found
        wide = self._fallback.propose(history.without(rejected), FALLBACK_POINTS)
        accepted = [suggestion for suggestion in wide if is_accepted(suggestion)]
        if accepted:
            return [_routed(memory, suggestion) for suggestion in accepted[:n]]
        logger.warning("study %s: nothing proposed is expected to fit and to run; trying the nearest", self.spec.name)
        return [min([*nearest, *wide], key=distance)]

    def _start(self, history: History, n: int) -> list[Suggestion]:
        """Return the best of the earlier studies, then points of the start-up."""
        best = [
            Suggestion(params=trial.params, generator=f"best of {trial.study}")
            for trial in best_of(history.spec, history.earlier)
            if key_of(trial.params) not in history.taken and self.spec.allows(trial.params)
        ][:n]
        return [*best, *(self._startup.propose(history.extended(best), n - len(best)) if len(best) < n else [])]

    @cached_property
    def _generator(self) -> Generator:
        return self._make_generator()

    def _propose(self, history: History, n: int) -> list[Suggestion]:
        return self._proposed(history, n, lambda: self._generator.propose(history, n))

    def _propose_at_once(self, history: History, n: int) -> list[Suggestion]:
        generator = self._generator
        if not isinstance(generator, Batcher):
            return self._propose(history, n)
        return self._proposed(history, n, lambda: generator.batch(history, n))

    def _proposed(self, history: History, n: int, generate: Callable[[], list[Suggestion]]) -> list[Suggestion]:
        """Return proposals of the generator, or of the fallback when it fails, so that workers always get a trial."""
        try:
            found = self._kept(history, generate()[:n])
            for suggestion in found:
                self.spec.check_params(suggestion.params)
        except (GeneratorError, ValueError) as error:
            logger.warning("study %s: %s; proposing from a Sobol sequence instead", self.spec.name, error)
            found = []
        return found or self._fallback.propose(history, n)

    def _kept(self, history: History, found: Sequence[Suggestion]) -> list[Suggestion]:
        """Return the suggestions; where one breaks a rule, the nearest new configuration that keeps all."""
        kept: list[Suggestion] = []
        for suggestion in found:
            taken = history.taken | {key_of(other.params) for other in kept}
            kept.append(_moved(self.spec, suggestion, taken))
        return kept

    def best(self) -> int | None:
        """Return the id of the trial that stands for the best configuration (`hpo.answer`); None without a result."""
        found = answer(self.spec, self._records.values())
        if found is None:
            return None
        return next(record.id for record in self._records.values() if record.number == found.winner.chosen)

    # ---------------------------------------------------------------- learning

    def register(self, id: int, suggestion: Suggestion | Params) -> None:
        """Record that a configuration becomes trial `id`."""
        if not isinstance(suggestion, Suggestion):
            suggestion = Suggestion(params=suggestion, generator="manual")
        self.spec.check_params(suggestion.params)
        self._keep(
            TrialRecord(
                id=id,
                number=self._records[id].number if id in self._records else len(self._records),
                state=TrialState.SUGGESTED,
                params=suggestion.params,
                generator=suggestion.generator,
                predicted_mean=suggestion.predicted_mean,
                predicted_sd=suggestion.predicted_sd,
            )
        )

    def report(self, id: int, step: int, metrics: Metrics) -> Decision:
        """Return whether the trial continues, stops or pauses, after recording its metrics at `step` epochs."""
        record = self._record(id)
        record = replace(record, state=TrialState.RUNNING, curve={**record.curve, step: metrics}, epochs_done=step)
        self._keep(record)
        return decide(self.spec, record, list(self._records.values()))

    def tell(self, id: int, metrics: Metrics) -> None:
        """Record the final metrics of a trial that ran to its end; a value that is not finite means it diverged."""
        if any(not math.isfinite(value) for value in metrics.values()):
            self.fail(id, FailureKind.DIVERGED)
        else:
            record = self._record(id)
            # Means over the last epochs need the last one, which may be told here alone.
            curve = {self.spec.task.epochs: metrics, **record.curve} if self.spec.last_epochs else record.curve
            self._keep(replace(record, state=TrialState.COMPLETED, metrics=metrics, curve=curve))

    def stop(self, id: int, metrics: Metrics | None = None) -> None:
        """Record that a trial was stopped early; without `metrics` those of its last report are final."""
        record = self._record(id)
        kept = final_metrics(record) if metrics is None else metrics
        self._keep(replace(record, state=TrialState.STOPPED, metrics=kept))

    def pause(self, id: int) -> None:
        """Record that a trial was paused at a rung; `promotions` returns it once it may continue."""
        self._keep(replace(self._record(id), state=TrialState.PAUSED))

    def promotions(self) -> list[int]:
        """Return the ids of the paused trials that the stopping rule now promotes."""
        return promotions(self.spec, list(self._records.values()))

    def fail(self, id: int, kind: FailureKind) -> None:
        """Record that a trial failed: its configuration is not proposed again."""
        self._keep(replace(self._record(id), state=TrialState.FAILED, failure_kind=FailureKind(kind), metrics=None))

    def forget(self, id: int) -> None:
        """Drop a trial that was withdrawn before it ran."""
        self._record(id)
        del self._records[id]
        self._memory_model = None

    def replay(self, records: Iterable[TrialRecord]) -> None:
        """Replace all trial records by `records`."""
        self._records = {record.id: settled(record, self.spec.last_epochs) for record in records}
        self._memory_model = None

    def history(self) -> History:
        """Return the trial records as generators read them."""
        records, memory = list(self._records.values()), self._memory()
        if not self._is_runnability_known:
            # The baselines are not kept from where trials fail.
            known = runnability(self.spec, records, explained=memory.demand_gib.keys()) if self._is_model else None
            self._runnability, self._is_runnability_known = known, True
        spec = with_memory_limit(self.spec, memory, records)
        return History(spec, records, memory.demand_gib, self._earlier, runnability=self._runnability)

    def _memory(self) -> MemoryModel:
        if self._memory_model is None:
            self._memory_model = MemoryModel(self.spec, list(self._records.values()), self._fleet)
            self._is_runnability_known = False
        return self._memory_model

    def _keep(self, record: TrialRecord) -> None:
        self._records[record.id] = settled(record, self.spec.last_epochs)
        self._memory_model = None

    def _record(self, id: int) -> TrialRecord:
        if id not in self._records:
            raise NotFoundError(f"the optimizer does not know trial {id}: register it first")
        return self._records[id]


def _routed(memory: MemoryModel, suggestion: Suggestion) -> Suggestion:
    """Return the suggestion with the device memory that it is predicted to need."""
    demand = memory.predict_gib(suggestion.params)
    return suggestion if demand is None else replace(suggestion, required_memory_bytes=device_bytes_for(demand))


def _moved(spec: StudySpec, suggestion: Suggestion, taken: Collection[ParamsKey]) -> Suggestion:
    """Return the suggestion, or where it breaks a rule the nearest one that does not, without a prediction."""
    if spec.allows(suggestion.params):
        return suggestion
    params = nearest_allowed(spec, suggestion.params, taken)
    return suggestion if params is None else Suggestion(params=params, generator=suggestion.generator)


def startup_trials(spec: StudySpec, *, earlier: int = 0) -> int:
    """Return the number of quasi-random trials before a model takes over; `earlier` counts trials of earlier studies.

    `auto` is half the number of parameters that vary and at least 5, but leaves a small study two thirds of its
    trials for the model. Each earlier trial replaces one of the start-up, of which at least two remain.
    """
    if spec.optimizer.startup_trials != "auto":
        return spec.optimizer.startup_trials
    wanted = max(5, math.ceil(sum(varies(parameter) for parameter in spec.space.values()) / 2))
    if spec.budget.trials is not None:
        wanted = min(wanted, max(3, spec.budget.trials // 3))
    return max(2, wanted - earlier) if earlier else wanted
