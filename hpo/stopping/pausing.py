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
from dataclasses import replace
from typing import Final

from ..results.outcome import final_metrics
from ..results.ranking import scores
from ..spec import StudySpec
from ..spec.study import CurvesStopping
from ..trial import TrialRecord, TrialState
from .curves import expected_ends, places_of

_PAUSE_SHARE: Final = 1 / 6
"""Trials pause at the first rung from this share of their epochs on."""


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
    if _are_all_begun(spec, records):
        return [trial.id for trial in paused]
    return [_best(spec, rule, paused, records)] if paused and _may_finish_one(spec, rule, records) else []


def _first_at_rung(spec: StudySpec, rule: CurvesStopping, trial: TrialRecord) -> int | None:
    """Return the first measured step at or after the rung, where a trial pauses; None for the last epoch."""
    rung = _rung(spec, rule)
    return min((step for step in trial.curve if rung <= step < spec.task.epochs), default=None)


def _rung(spec: StudySpec, rule: CurvesStopping) -> int:
    return next(place for place in places_of(spec, rule) if place >= _PAUSE_SHARE * spec.task.epochs)


def _may_finish_one(spec: StudySpec, rule: CurvesStopping, records: Sequence[TrialRecord]) -> bool:
    """Return whether one more trial may continue without more epochs being spent beyond the rung than up to it."""
    rung = _rung(spec, rule)
    done = [record.last_step or 0 for record in records]
    explored = sum(min(epochs, rung) for epochs in done)
    # Those that run beyond the rung will take all that is left of them.
    ends = (
        spec.task.epochs if record.state is TrialState.RUNNING and epochs >= rung else epochs
        for record, epochs in zip(records, done, strict=True)
    )
    finished = sum(max(end - rung, 0) for end in ends)
    return finished + spec.task.epochs - rung <= explored


def _are_all_begun(spec: StudySpec, records: Sequence[TrialRecord]) -> bool:
    # What failed has had its place in the budget: no other trial comes instead.
    begun = sum(record.last_step is not None or record.state is TrialState.FAILED for record in records)
    return spec.budget.trials is not None and begun >= spec.budget.trials


def _best(spec: StudySpec, rule: CurvesStopping, paused: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> int:
    if len(spec.objectives) > 1 or spec.constraints:
        order = scores(spec, {trial.id: final_metrics(trial) for trial in paused})
    else:
        ends = expected_ends(spec, rule, paused, records)
        order = {trial.id: end for trial, end in zip(paused, ends, strict=True)}
    return max(paused, key=lambda trial: (order.get(trial.id, -math.inf), -trial.number)).id
