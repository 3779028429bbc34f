"""The configurations of a study, best first, and what is believed of each.

Trials of the same configuration are combined. A trial that was stopped counts with the end that its curve is believed
to have, so it is the best only if that is believed to be higher than any other. The expected values, from which the
effect of selection is taken off (`shrinkage`), decide; the luckiest observed value stays visible beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ..arrays import Array, Indices, Mask
from ..results.outcome import final_metrics, finite, gain, metric_sign
from ..spec import ImageTask, StudySpec
from ..trial import RESULT_STATES, Params, TrialRecord, TrialState
from .estimates import Estimates, clips_of, estimated, is_share
from .shrinkage import chances_to_be_best, shrunken

CLEAR: Final = 0.9
"""The leader is clear from this probability to be the best on."""
_DIGITS: Final = 9
"""Expectations that agree in so many significant digits are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is believed of one objective of a configuration, in the unit and direction of its metric."""

    observed: float
    """Mean of the last values that its trials reported."""
    believed: float
    """Where its trainings end: from all epochs of all its trials, before it was chosen among others."""
    sd: float
    """Standard deviation of `believed` around the value on new data: epochs, seeds and validation clips."""
    expected: float
    """Expected on new data, with the effect of selection taken off."""
    expected_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration with a result that keeps the constraints."""

    params: Params
    trials: tuple[int, ...]
    """Numbers of its trials with a result, ascending."""
    chosen: int
    """The number of the trial among them that is believed to have ended best: its checkpoint is exported."""
    completed: int
    """How many of the trials ran to their end; the others were stopped."""
    estimates: Mapping[str, Estimate]
    """By objective, in the order of the spec."""
    probability: float
    """Of being the best on new data; with several objectives, of being the best in the first."""

    @property
    def first(self) -> Estimate:
        """The estimate of the first objective."""
        return next(iter(self.estimates.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a study has found."""

    metric: str
    """The first objective."""
    candidates: tuple[Candidate, ...]
    """The configurations with a result that keep the constraints: the best first, at least one."""
    front: tuple[Candidate, ...]
    """Those of them that no other one is expected to dominate; with one objective the best alone."""
    luckiest: int
    """Number of the trial with the best observed value of the first objective."""
    luckiest_value: float
    trials: int
    """Number of trials with a result that keep the constraints."""
    clips: int | None
    """Number of validation clips behind a value; None if it is unknown, or the metric is not a share of clips."""
    of_images: bool = False
    """Whether these clips are images."""
    seed_sd: float
    """Believed standard deviation of the first objective between trainings of one configuration."""

    @property
    def winner(self) -> Candidate:
        """The best configuration."""
        return self.candidates[0]

    @property
    def is_clear(self) -> bool:
        """Whether the best one is so with a probability of at least `CLEAR`."""
        return self.winner.probability >= CLEAR


def answer(spec: StudySpec, records: Iterable[TrialRecord], *, clips: int | None = None) -> Answer | None:
    """Return the answer of a study; None where no trial has a result that keeps the constraints.

    The order of the records does not matter. `clips` is the number of validation clips, where the caller knows it.
    """
    ended = _with_results(spec, records)
    if not ended:
        return None
    owners, configurations = _configurations(ended)
    clips = clips_of(spec, ended) if clips is None else clips
    estimates = {
        name: estimated(spec, ended, owners, name, clips=clips if is_share(spec, name) else None)
        for name in dict.fromkeys([*(o.metric for o in spec.objectives), *(c.metric for c in spec.constraints)])
    }
    feasible = [place for place in range(len(configurations)) if _is_feasible(spec, estimates, place)]
    if not feasible:
        return None
    kept = [estimates[objective.metric].of(feasible) for objective in spec.objectives]
    members = [configurations[place] for place in feasible]
    return _Choice(spec, ended, members, estimates=kept, clips=clips).answer()


class _Choice:
    """The feasible configurations, their estimates and the choice among them."""

    def __init__(
        self,
        spec: StudySpec,
        ended: Sequence[TrialRecord],
        members: Sequence[Sequence[int]],
        *,
        estimates: Sequence[Estimates],
        clips: int | None,
    ) -> None:
        """Take the trials, the places in them of each configuration's, and the estimates of each objective."""
        self._spec, self._ended, self._members, self._estimates, self._clips = spec, ended, members, estimates, clips
        self._names = [objective.metric for objective in spec.objectives]
        self._signs = [metric_sign(spec, name) or 1.0 for name in self._names]
        self._shrunken = [shrunken(found.means, found.of_differences) for found in estimates]
        self._probabilities = chances_to_be_best(*self._shrunken[0])

    def answer(self) -> Answer:
        """Put it together."""
        order = sorted(range(len(self._members)), key=self._rank)
        front = [place for place in order if not self._is_dominated[place]] if len(self._names) > 1 else order[:1]
        candidates = {place: self._candidate(place) for place in dict.fromkeys([*front, *order])}
        shown = [place for members in self._members for place in members]
        luckiest = max(shown, key=lambda place: (self._gains(place), -self._ended[place].number))
        first = self._names[0]
        return Answer(
            metric=first,
            candidates=tuple(candidates.values()),
            front=tuple(candidates[place] for place in front),
            luckiest=self._ended[luckiest].number,
            luckiest_value=final_metrics(self._ended[luckiest])[first],
            trials=len(shown),
            clips=self._clips if is_share(self._spec, first) else None,
            seed_sd=self._estimates[0].seed_sd,
            of_images=isinstance(self._spec.task, ImageTask),
        )

    @cached_property
    def _compared(self) -> list[Array]:
        """Expected values, (configurations, objectives); then the believed and the observed ones, which break ties."""
        expected = [means for means, _ in self._shrunken]
        believed = [found.means for found in self._estimates]
        observed = [found.observed for found in self._estimates]
        return [_rounded(np.stack(values, axis=1)) for values in (expected, believed, observed)]

    def _rank(self, place: int) -> tuple[list[float], int]:
        return [-value for values in self._compared for value in values[place].tolist()], self._numbers(place)[0]

    @cached_property
    def _is_dominated(self) -> Mask:
        """Whether another configuration is expected to be as good in every objective and better in one."""
        expected = self._compared[0]
        at_least = np.all(expected[:, None] >= expected[None], axis=2)
        return np.asarray((at_least & ~at_least.T).any(axis=0))

    @cached_property
    def _ends(self) -> Array:
        """The believed ends of the trials in the first objective."""
        return _rounded(self._estimates[0].trials)

    def _numbers(self, place: int) -> list[int]:
        return sorted(self._ended[member].number for member in self._members[place])

    def _gains(self, member: int) -> tuple[float, ...]:
        metrics = final_metrics(self._ended[member])
        return tuple(gain(objective, metrics[objective.metric]) for objective in self._spec.objectives)

    def _candidate(self, place: int) -> Candidate:
        members = self._members[place]
        chosen = max(members, key=lambda member: (float(self._ends[member]), -self._ended[member].number))
        return Candidate(
            params=self._ended[members[0]].params,
            trials=tuple(self._numbers(place)),
            chosen=self._ended[chosen].number,
            completed=sum(self._ended[member].state is TrialState.COMPLETED for member in members),
            estimates={name: found[place] for name, found in zip(self._names, self._believed, strict=True)},
            probability=float(self._probabilities[place]),
        )

    @cached_property
    def _believed(self) -> list[list[Estimate]]:
        """What is believed of each configuration, by objective."""
        return [
            _estimates(sign, found, means, variances)
            for sign, found, (means, variances) in zip(self._signs, self._estimates, self._shrunken, strict=True)
        ]


def _estimates(sign: float, found: Estimates, means: Array, variances: Array) -> list[Estimate]:
    """Return the estimates of one objective, from what is believed before and after the selection is taken off."""
    columns = (
        sign * found.observed,
        sign * found.means,
        np.sqrt(found.variances + found.sampling),
        sign * means,
        np.sqrt(variances + found.shared),
    )
    return [
        Estimate(observed=observed, believed=believed, sd=sd, expected=expected, expected_sd=expected_sd)
        for observed, believed, sd, expected, expected_sd in zip(*(one.tolist() for one in columns), strict=True)
    ]


def _with_results(spec: StudySpec, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that ended with a finite value of all objectives and constraints, by number."""
    names = [*(o.metric for o in spec.objectives), *(c.metric for c in spec.constraints)]
    found = [
        record
        for record in records
        if record.state in RESULT_STATES and all(finite(final_metrics(record), name) is not None for name in names)
    ]
    return sorted(found, key=lambda record: record.number)


def _configurations(ended: Sequence[TrialRecord]) -> tuple[Indices, list[list[int]]]:
    """Return the configuration of each trial, and the places of the trials of each configuration."""
    members: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for place, record in enumerate(ended):
        members.setdefault(tuple(sorted(record.params.items())), []).append(place)
    owners = np.empty(len(ended), dtype=np.intp)
    for owner, places in enumerate(members.values()):
        owners[places] = owner
    return owners, list(members.values())


def _is_feasible(spec: StudySpec, estimates: Mapping[str, Estimates], place: int) -> bool:
    """Return whether a configuration is more likely than not to keep each constraint."""
    for constraint in spec.constraints:
        believed = (metric_sign(spec, constraint.metric) or 1.0) * estimates[constraint.metric].means[place]
        if constraint.violation(float(believed)) > 0:
            return False
    return True


def _rounded(values: Array) -> Array:
    """Return values with so few digits that the order of the records leaves no trace."""
    known = np.where(values == 0, 1.0, np.abs(values))
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(known)))
    return np.asarray(np.round(values * scale) / scale)
