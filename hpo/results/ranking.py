"""Which trial is better: at one step of their curves, and at the end of a study.

Feasible outcomes come before infeasible ones, and those by how little they violate. Feasible outcomes of several
objectives are sorted by non-domination (Deb et al., 2002, NSGA-II, section III.A), and within a front by an epsilon
net: the point furthest from those already taken comes next, so that a cut through a front keeps its breadth
(Schmucker et al., 2021, Multi-objective asynchronous successive halving).

Here a value is what was observed. Which configuration of a study is the best is a question of what is believed of them
(`hpo.answer`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Array, Mask
from ..spec import StudySpec
from ..trial import Metrics, TrialState
from .outcome import gain, objective_values, total_violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What ranks a trial among those of its study."""

    number: int
    state: TrialState
    gains: tuple[float, ...] | None
    """The objectives, more is better; None unless all are there and finite."""
    violation: float
    """What is violated, summed over the constraints; 0 for a feasible outcome."""


def result_of(spec: StudySpec, *, number: int, state: TrialState, metrics: Metrics) -> Result:
    """Return what ranks a trial; `metrics` are its final ones, or those of its last step while it has none."""
    return Result(number=number, state=state, gains=gains(spec, metrics), violation=total_violation(spec, metrics))


def best_first(results: Iterable[Result]) -> list[Result]:
    """Return trials in order: completed ones before others, then feasible ones before infeasible ones.

    Among those, better ones come before worse ones, and trials without finite objectives are last. Of equals the one
    with the smaller number comes first.
    """
    found = list(results)
    points = {result.number: result.gains for result in found if result.gains is not None}
    levels = _levels({result.number: result.violation for result in found}, points)
    place = {number: level for level, numbers in enumerate(levels) for number in numbers}

    def rank(result: Result) -> tuple[bool, bool, float, int, int]:
        is_open = result.state is not TrialState.COMPLETED
        return (is_open, result.gains is None, result.violation, place.get(result.number, 0), result.number)

    return sorted(found, key=rank)


def gains(spec: StudySpec, metrics: Metrics) -> tuple[float, ...] | None:
    """Return the objectives so that more is better; None unless all are there and finite."""
    values = objective_values(spec, metrics)
    if values is None:
        return None
    return tuple(gain(objective, value) for objective, value in zip(spec.objectives, values, strict=True))


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether `first` is at least as good in every objective and better in one."""
    return all(a >= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)


def scores(spec: StudySpec, rows: Mapping[int, Metrics]) -> dict[int, float]:
    """Return the share of `rows` (trial to its metrics at one step) that each trial is not worse than.

    From above 0 to 1, equal for equal outcomes; rows without a finite objective are left out.
    """
    points = {trial: point for trial, row in rows.items() if (point := gains(spec, row)) is not None}
    levels = _levels({trial: total_violation(spec, rows[trial]) for trial in points}, points)
    found: dict[int, float] = {}
    worse = 0
    for level in reversed(levels):
        worse += len(level)
        found.update(dict.fromkeys(level, worse / len(points)))
    return found


def _levels(violation: Mapping[int, float], points: Mapping[int, tuple[float, ...]]) -> list[list[int]]:
    """Return groups of equals, the best first."""
    feasible = [trial for trial in points if violation[trial] == 0]
    levels = [
        [feasible[place] for place in group] for group in _ordered(np.array([points[trial] for trial in feasible]))
    ]
    infeasible: defaultdict[float, list[int]] = defaultdict(list)
    for trial in points:
        if violation[trial] > 0:
            infeasible[violation[trial]].append(trial)
    return levels + [infeasible[amount] for amount in sorted(infeasible)]


def _ordered(points: Array) -> list[list[int]]:
    """Return groups of equal `points` (trials, objectives; more is better), front by front, in the order of the net."""
    if not len(points):
        return []
    if points.shape[1] == 1:
        # One objective is only sorted: the rules of stopping ask for it hundreds of times a study.
        order = np.argsort(-points[:, 0], kind="stable")
        cuts = np.flatnonzero(np.diff(points[order, 0])) + 1
        return [group.tolist() for group in np.split(order, cuts)]
    scale = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(scale > 0, scale, 1.0)
    found: list[list[int]] = []
    left = np.arange(len(points))
    while len(left):
        is_front = _front(points[left])
        found += [[int(left[is_front][place]) for place in group] for group in _net(unit[left[is_front]])]
        left = left[~is_front]
    return found


def _front(points: Array) -> Mask:
    """Return which points no other dominates."""
    at_least = np.all(points[:, None] >= points[None], axis=2)
    better = np.any(points[:, None] > points[None], axis=2)
    return np.asarray(np.logical_not(np.any(at_least & better, axis=0)))


def _net(points: Array) -> list[list[int]]:
    """Return the order of a front, equals together: the best in the first objective, then what is furthest from it."""
    found: list[list[int]] = []
    distance = np.full(len(points), np.inf)
    chosen = int(np.argmax(points[:, 0]))
    while (distance >= 0).any():
        same = np.flatnonzero((points == points[chosen]).all(axis=1))
        found.append([int(place) for place in same])
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen], axis=1))
        distance[same] = -1.0
        chosen = int(np.argmax(distance))
    return found
