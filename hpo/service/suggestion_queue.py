"""Serving one study: one step adds a suggestion that is missing, or plans one again that has become stale."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from .. import traces
from ..optimizer import create_generator
from ..optimizer.ask_tell import Optimizer
from ..optimizer.generator import Generator
from ..spec import StudySpec
from ..store import Database, earlier, lifecycle, trials
from ..store.studies import StudyRow
from ..trial import ENQUEUED, Suggestion, TrialRecord, TrialState
from .fleet import read_fleet
from .pace import suggestions_of_a_fit

logger = logging.getLogger(__name__)

REPLANNED: Final = 4
"""This many of the suggestions that are claimed next are planned again after a result; others when they are."""
PATIENCE_SECONDS: Final = 5.0
"""Where a fit takes longer than this, a worker with nothing to do gets a Sobol point instead of waiting for it."""

_FINISHED: Final = (TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED)
_NEVER: Final = -1


class SuggestionQueue:
    """Fills and refreshes the queue of one study.

    What it remembers only saves work: with how many results and for which largest device each suggestion was planned,
    and how long a fit takes.
    """

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._planned_with: dict[int, int] = {}
        self._planned_for: dict[int, int | None] = {}
        self._looked_at: tuple[int, ...] | None = None
        self._is_used_up = False
        self._fit_seconds = 0.0
        self._began = 0.0
        """When the step began, as a Unix time."""
        self._is_prepared = False
        self._generator: tuple[int, Generator] | None = None

    def step(self, study: StudyRow, *, generation: int, demand: int) -> bool:
        """Do the most urgent thing for `demand` workers that may ask soon; return whether more may be left to do."""
        missing = _missing(study, demand)
        self._began = time.time()
        # Something can only be stale when results came in or the queue moved.
        with self._database.transaction() as connection:
            fleet = read_fleet(connection)
        counts = (_count(study, *_FINISHED), _count(study, TrialState.SUGGESTED), len(study.waiting_guesses))
        seen = (*counts, study.imported, study.revision, fleet.largest_bytes or 0)
        if (missing <= 0 or self._is_used_up) and self._looked_at == seen:
            self._prepare(study)
            return False
        with self._database.transaction() as connection:
            records = trials.records(connection, study.id)
            taken_over = earlier.read(connection, study.id) if study.spec.optimizer.warm_start else ()
        generator = partial(self._generator_for, study)
        optimizer = Optimizer(study.spec, generator, fleet=fleet, guesses=study.guesses, earlier=taken_over)
        optimizer.replay(records)
        if study.waiting_guesses and self._take_guess(study, optimizer, generation, records, has_room=missing > 0):
            return True
        ended = [record for record in records if record.state in _FINISHED]
        results = len(ended)
        self._is_used_up = optimizer.is_used_up
        ahead = suggestions_of_a_fit(ended, workers=demand, fit_seconds=self._fit_seconds)
        if ahead > 1 and optimizer.uses_model:
            missing = max(missing, _missing(study, ahead + max(demand, 1)) if _waiting(study) < ahead else 0)
        if missing > 0 and not self._is_used_up:
            is_wanted_now = not _waiting(study) and demand > _count(study, TrialState.RUNNING)
            return self._top_up(
                study, optimizer, generation, missing, results, is_wanted_now=is_wanted_now, ahead=ahead
            )
        largest = fleet.largest_bytes
        # What was planned ahead is tried before a new plan would be ready.
        if self._replan(study, optimizer, generation, records, results, largest=largest, keeps_old=ahead > 1):
            return True
        self._looked_at = seen
        return False

    def _top_up(
        self,
        study: StudyRow,
        optimizer: Optimizer,
        generation: int,
        missing: int,
        results: int,
        *,
        is_wanted_now: bool,
        ahead: int,
    ) -> bool:
        planned_with = results
        if not optimizer.uses_model:
            suggestions = optimizer.ask(min(missing, optimizer.startup_left or missing))
        elif is_wanted_now and self._fit_seconds > PATIENCE_SECONDS:
            # Planned again by the next step, unless it is claimed before.
            suggestions, planned_with = optimizer.quick(), _NEVER
        else:
            # One at a time: it can be claimed while the next is planned.
            suggestions = self._fit(optimizer, min(ahead, missing))
        added = self._add(study, suggestions, generation)
        self._planned_with |= {record.id: planned_with for record in added}
        return bool(added)

    def _add(self, study: StudyRow, suggestions: Sequence[Suggestion], generation: int) -> list[TrialRecord]:
        with self._database.transaction() as connection:
            added = lifecycle.suggest(connection, study.id, suggestions, owner=self._owner, generation=generation)
        for record, suggestion in zip(added, suggestions, strict=False):
            _log("suggested", study, record.number, suggestion)
            self._trace("suggest", study, record, suggestion)
        return added

    def _take_guess(
        self,
        study: StudyRow,
        optimizer: Optimizer,
        generation: int,
        records: Sequence[TrialRecord],
        *,
        has_room: bool,
    ) -> bool:
        """Make the next guess a trial, in the place of a suggestion that nobody has claimed if there is one."""
        places = [record for record in records if _is_replaceable(record)]
        if not places and not has_room:
            return False
        if places:
            optimizer.forget(places[-1].id)
        (suggestion,) = optimizer.enqueued()
        if places:
            self._write(study, places[-1], suggestion, generation)
            return True
        return bool(self._add(study, [suggestion], generation))

    def _replan(
        self,
        study: StudyRow,
        optimizer: Optimizer,
        generation: int,
        records: Sequence[TrialRecord],
        results: int,
        *,
        largest: int | None,
        keeps_old: bool,
    ) -> bool:
        """Plan the first stale suggestion again that nobody has claimed; return whether there was one.

        A model plans it as if those behind it were not there, which are planned again after it and before they are
        claimed: taken as given, they would have 64 workers served as if 127 trials were running. With `keeps_old`, new
        results alone make none stale.
        """
        waiting = [record for record in records if _is_replaceable(record)]
        known = self._planned_with
        self._planned_with = {r.id: known[r.id] if r.id in known else _results_before(r, records) for r in waiting}
        for place, record in enumerate(waiting[:REPLANNED]):
            is_too_large = self._planned_for.get(record.id) != largest and not optimizer.expects_to_fit(record.params)
            self._planned_for[record.id] = largest
            if self._planned_with[record.id] >= results and not is_too_large:
                continue
            self._planned_with[record.id] = results
            behind = waiting[place + 1 :]
            _forget(optimizer, [record, *behind])
            is_of_model = optimizer.uses_model
            if not is_of_model:  # a sequence of points goes on behind them
                _remember(optimizer, behind)
            if (is_of_model and not keeps_old) or is_too_large or not optimizer.expects_to_run(record.params):
                there = [other.params for other in waiting[place:]]  # each only once, in a space of few choices
                # Nothing where an earlier release has repeated a configuration of a space that is used up.
                for suggestion in self._fit(optimizer):
                    if suggestion.params not in there:
                        self._write(study, record, suggestion, generation)
                return True
            _remember(optimizer, [record, *behind])  # part of the start-up, or planned ahead: it stays
        return False

    def _write(self, study: StudyRow, record: TrialRecord, suggestion: Suggestion, generation: int) -> None:
        """Put a suggestion in the place of `record`, unless that was claimed meanwhile."""
        with self._database.transaction() as connection:
            done = lifecycle.replace_suggestion(
                connection, record.id, suggestion, owner=self._owner, generation=generation
            )
        if done:
            _log("planned again", study, record.number, suggestion)
            self._trace("plan again", study, record, suggestion)

    def _trace(self, what: str, study: StudyRow, record: TrialRecord, suggestion: Suggestion) -> None:
        traces.record(
            what,
            traces.of_trial(study.uuid, record.id),
            began=self._began,
            study=study.name,
            trial=record.number,
            generator=suggestion.generator,
            expected=suggestion.predicted_mean,
        )

    def _fit(self, optimizer: Optimizer, count: int = 1) -> list[Suggestion]:
        started = time.monotonic()
        suggestions = optimizer.ask(count, at_once=count > 1)
        self._fit_seconds = time.monotonic() - started
        return suggestions

    def _prepare(self, study: StudyRow) -> None:
        """Import the model's libraries while there is nothing else to do."""
        if not self._is_prepared:
            self._is_prepared = True
            self._generator_for(study)

    def _generator_for(self, study: StudyRow, _: StudySpec | None = None) -> Generator:
        """Return the generator of a study; it is kept, since it remembers what saves work, until the spec changes."""
        if self._generator is None or self._generator[0] != study.revision:
            self._generator = study.revision, create_generator(study.spec)
        return self._generator[1]


def _forget(optimizer: Optimizer, records: Sequence[TrialRecord]) -> None:
    for record in records:
        optimizer.forget(record.id)


def _remember(optimizer: Optimizer, records: Sequence[TrialRecord]) -> None:
    for record in records:
        optimizer.register(record.id, record.params)


def _is_replaceable(record: TrialRecord) -> bool:
    """Return whether it is a suggestion that nobody has claimed and no person asked for."""
    is_new = record.state is TrialState.SUGGESTED and record.attempt == 0
    return is_new and record.generator != ENQUEUED and record.replicate_of is None


def _results_before(planned: TrialRecord, records: Sequence[TrialRecord]) -> int:
    """Return how many results there were when an earlier owner planned a suggestion: what came later makes it stale."""
    ends = [record.finished_at for record in records if record.state in _FINISHED]
    return sum(planned.created_at is None or end is None or end <= planned.created_at for end in ends)


def _missing(study: StudyRow, demand: int) -> int:
    """Return how many suggestions the queue lacks, within the budget of trials."""
    missing = max(demand, 1) - _waiting(study)
    if study.spec.budget.trials is None:
        return missing
    return min(missing, study.spec.budget.trials - study.live_trials)


def _waiting(study: StudyRow) -> int:
    """Return how many trials a worker could claim now: one that is backing off would leave it idle."""
    return _count(study, TrialState.SUGGESTED, TrialState.PAUSED) - study.held - study.backing_off


def _count(study: StudyRow, *states: TrialState) -> int:
    return sum(study.counts.get(state, 0) for state in states)


def _log(what: str, study: StudyRow, number: int, suggestion: Suggestion) -> None:
    values = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in suggestion.params.items()
    )
    expected = ""
    if suggestion.predicted_mean is not None and suggestion.predicted_sd is not None:
        metric = study.spec.objectives[0].metric
        expected = f"; expects {metric} {suggestion.predicted_mean:.4g} ± {suggestion.predicted_sd:.2g}"
    if suggestion.predicted_feasibility is not None:
        expected += f"; feasible with probability {suggestion.predicted_feasibility:.2f}"
    logger.info("study %s: trial %d %s by %s: %s%s", study.name, number, what, suggestion.generator, values, expected)
