"""Which trials pause and which continue, for the rule `curves` where it may pause.

A pause costs nothing but a checkpoint, so nothing is gained by finishing a trial before it is known to be worth it.
Each trial pauses at the first rung from a sixth of its epochs on, or before where it looks hopeless. Of the paused
ones that are not hopeless, the one with the best expected end continues, as long as no more epochs are spent beyond
that rung than up to it: half of the effort explores and half finishes what is best. Once all trials of the study have
begun, whatever has a chance is finished.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..results.outcome import final_metrics
from ..results.ranking import scores
from ..spec import StudySpec
from ..spec.study import CurvesStopping
from ..trial import TrialRecord, TrialState
from .curves import expected_ends, places_of

_PAUSE_SHARE: Final = 1 / 6
"""Trials pause at the first rung from this share of their epochs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What has been spent on the trials of a study, withdrawn ones and replicates left out."""

    begun: int
    """Trials that have reported an epoch, or failed: these have had their places in the budget."""
    explored: int
    """Epochs up to the rung where trials pause."""
    finished: int
    """Epochs beyond it; those that run there will take all that is left of them."""


def must_pause(spec: StudySpec, rule: CurvesStopping, trial: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Return whether a trial that has just reported pauses now; `rivals` are the other trials of the study."""
    if not is_at_pause(spec, rule, trial):
        return False
    paused = [rival for rival in rivals if rival.state is TrialState.PAUSED]
    trial = replace(trial, state=TrialState.PAUSED)
    return trial.id not in resumable(spec, rule, [*paused, trial], [*rivals, trial])


def is_at_pause(spec: StudySpec, rule: CurvesStopping, trial: TrialRecord) -> bool:
    """Return whether the last report of a trial is the one after which it pauses unless it is promoted at once."""
    return rule.pause and trial.last_step is not None and trial.last_step == _first_at_rung(spec, rule, trial)


def resumable(
    spec: StudySpec, rule: CurvesStopping, paused: Sequence[TrialRecord], records: Sequence[TrialRecord]
) -> list[int]:
    """Return the ids of those of the `paused` trials of a study, none of them hopeless, that continue now."""
    effort = _effort(spec, rule, records)
    if are_all_begun(spec, effort):
        return [trial.id for trial in paused]
    return [_best(spec, rule, paused, records)] if paused and may_finish_one(spec, rule, effort) else []


def pause_rung(spec: StudySpec, rule: CurvesStopping) -> int:
    """Return the epoch at or after which trials pause, the last one where there is none before."""
    return next(place for place in places_of(spec, rule) if place >= _PAUSE_SHARE * spec.task.epochs)


def may_finish_one(spec: StudySpec, rule: CurvesStopping, effort: Effort) -> bool:
    """Return whether one more trial may continue without more epochs being spent beyond the rung than up to it."""
    return effort.finished + spec.task.epochs - pause_rung(spec, rule) <= effort.explored


def are_all_begun(spec: StudySpec, effort: Effort) -> bool:
    """Return whether no other trial will begin: as many have as the budget allows."""
    return spec.budget.trials is not None and effort.begun >= spec.budget.trials


def _first_at_rung(spec: StudySpec, rule: CurvesStopping, trial: TrialRecord) -> int | None:
    """Return the first measured step at or after the rung, where a trial pauses; None for the last epoch."""
    rung = pause_rung(spec, rule)
    return min((step for step in trial.curve if rung <= step < spec.task.epochs), default=None)


def _effort(spec: StudySpec, rule: CurvesStopping, records: Sequence[TrialRecord]) -> Effort:
    rung = pause_rung(spec, rule)
    done = [record.last_step or 0 for record in records]
    ends = (
        spec.task.epochs if record.state is TrialState.RUNNING and epochs >= rung else epochs
        for record, epochs in zip(records, done, strict=True)
    )
    return Effort(
        begun=sum(record.last_step is not None or record.state is TrialState.FAILED for record in records),
        explored=sum(min(epochs, rung) for epochs in done),
        finished=sum(max(end - rung, 0) for end in ends),
    )


def _best(spec: StudySpec, rule: CurvesStopping, paused: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> int:
    if len(spec.objectives) > 1 or spec.constraints:
        order = scores(spec, {trial.id: final_metrics(trial) for trial in paused})
    else:
        ends = expected_ends(spec, rule, paused, records)
        order = {trial.id: end for trial, end in zip(paused, ends, strict=True)}
    return max(paused, key=lambda trial: (order.get(trial.id, -math.inf), -trial.number)).id
