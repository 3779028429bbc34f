"""The probability that a configuration runs, learned from every trial that failed and every trial that ran.

All kinds of failure count, except memory where the memory model explains it. A failure that its machine may have caused
(the trial was lost, its code raised, or it could not be built there) is weighed against that explanation: hypotheses
about which machines are broken are averaged, each with the rates of failures over the space (`regions`) that follow
from the trials of the other machines. So a machine that loses every trial says little about configurations, and a
failure on a machine that runs others says as much as one that the training itself noticed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from ...arrays import Array
from ...spec import StudySpec
from ...trial import RESULT_STATES, FailureKind, Params, TrialRecord, TrialState
from ..cube import ParamsKey, key_of
from .regions import OUTSIDE, Grid, Rates, mixed, rates
from .space import Space

MACHINE_FAULTS: Final = frozenset({FailureKind.LOST, FailureKind.ERROR, FailureKind.INVALID})
"""Failures that a machine may cause: it died, it lacks memory, disk space, a library or the data set."""
_BROKEN: Final = (9.0, 0.5)
"""Beta prior of the rate at which a broken machine fails trials."""
_BROKEN_ODDS: Final = 0.05
"""Prior odds that a machine is broken."""
_LEAST_SCORE: Final = -4.0
"""Machines with lower log odds to be broken are taken for sound."""
_MOST_MACHINE_HYPOTHESES: Final = 6
_LEAST_SHARE: Final = 0.5
"""A configuration clearly fails when it is less likely to run than this share of what those that ran were."""
_WANTED_SHARE: Final = 0.9
"""Below this share the weights of an acquisition fall steeply, so that such configurations are searched last."""
_LEAST_PROBABILITY: Final = 1e-3
_MOST_MODELS: Final = 16
"""An optimizer process serves several studies in turn, and looks at each of them before and after a change."""
_STEEPNESS: Final = 10.0
"""How many times as fast as the probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A trial, or a lost attempt of one, of which it is known whether it ran."""

    params: Params
    failed: bool
    machine: str | None
    """The machine that ran it, or may have failed it; None where the machine had no part in it or is not known."""


def evidence_of(records: Iterable[TrialRecord], explained: Set[int] = frozenset()) -> list[Evidence]:
    """Return what the trials show; `explained` are the ids of the failures that the memory model explains.

    Each lost attempt counts against the machine that it was lost on, whatever became of the trial.
    """
    found = []
    for record in records:
        found += [Evidence(params=record.params, failed=True, machine=machine) for machine in record.lost_on]
        if record.state is TrialState.FAILED:
            if record.id in explained or (record.failure_kind is FailureKind.LOST and record.lost_on):
                continue
            machine = record.worker if record.failure_kind in MACHINE_FAULTS else None
            found.append(Evidence(params=record.params, failed=True, machine=machine))
        elif record.state in RESULT_STATES or (record.curve and record.state is not TrialState.WITHDRAWN):
            found.append(Evidence(params=record.params, failed=False, machine=record.worker))
    return found


def runnability(
    spec: StudySpec, records: Iterable[TrialRecord], explained: Set[int] = frozenset()
) -> RunnabilityModel | None:
    """Return what trials show about which configurations run; None without failures, or with nothing to choose.

    `explained` are the ids of the failures that the memory model explains. The same evidence about the same space gives
    the same model, which computes its rates once.
    """
    evidence = evidence_of(records, explained)
    if not any(seen.failed for seen in evidence):
        return None
    key = repr(spec.space), tuple((key_of(seen.params), seen.failed, seen.machine) for seen in evidence)
    return _model(_Known(key=key, spec=spec, evidence=evidence))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a model is made of; equal where its `key` is."""

    key: tuple[str, tuple[tuple[ParamsKey, bool, str | None], ...]]
    spec: StudySpec = field(compare=False)
    evidence: Sequence[Evidence] = field(compare=False)


@lru_cache(maxsize=_MOST_MODELS)
def _model(known: _Known) -> RunnabilityModel | None:
    space = Space(known.spec)
    return RunnabilityModel(space, known.evidence) if space.axes else None


class RunnabilityModel:
    """Predicts whether configurations run, as a pure function of the trials of a study of which at least one failed."""

    def __init__(self, space: Space, evidence: Sequence[Evidence]) -> None:
        self._space = space
        self._evidence = evidence

    def of(self, params: Params) -> float:
        """Return the probability that a configuration runs."""
        return float(self.values(self._space.encode(params)[None])[0])

    def clearly_fails(self, params: Params) -> bool:
        """Return whether a configuration is much less likely to run than those that did; False before any did."""
        return self.of(params) < _LEAST_SHARE * self._usual

    @cached_property
    def _usual(self) -> float:
        """The median probability of the configurations that ran; 0 before any did."""
        rows = [self._space.encode(seen.params) for seen in self._evidence if not seen.failed]
        return float(np.median(self.values(np.stack(rows)))) if rows else 0.0

    def values(self, rows: Array) -> Array:
        """Return the probabilities that the configurations of rows (n, dimensions) run: (n,)."""
        return np.exp(self.logs(rows)[0])

    def logs(self, rows: Array) -> tuple[Array, Array]:
        """Return the logarithms of the probabilities at rows, and their gradient; 0 for discrete coordinates."""
        rate, slope = _rate(self._space, self._rates, rows)
        runs = 1.0 - rate
        kept = np.maximum(runs, _LEAST_PROBABILITY)
        return np.log(kept), np.where(runs > _LEAST_PROBABILITY, -1.0, 0.0)[:, None] * slope / kept[:, None]

    def weights(self, rows: Array) -> tuple[Array, Array]:
        """Return the logarithms of weights for an acquisition, and their gradient: the probabilities to run.

        Where configurations are much less likely to run than those that did, the weights fall steeply.
        """
        logs, gradient = self.logs(rows)
        below = logs - math.log(max(_WANTED_SHARE * self._usual, _LEAST_PROBABILITY))
        return logs + _STEEPNESS * np.minimum(below, 0.0), gradient * np.where(below < 0, 1 + _STEEPNESS, 1.0)[:, None]

    @cached_property
    def _rates(self) -> Rates:
        from scipy.special import softmax  # the API imports this module, and needs it only after a failure

        rows = np.stack([self._space.encode(seen.params) for seen in self._evidence])
        failed = np.array([seen.failed for seen in self._evidence])
        machines = np.array([seen.machine or "" for seen in self._evidence])
        scores, found = [], []
        for broken in _candidates(self._evidence):
            theirs = np.isin(machines, list(broken))
            found.append(rates(self._space, rows[~theirs], failed[~theirs]))
            there = int((failed & theirs).sum()), int((~failed & theirs).sum())
            scores.append(_log_broken(*there, machines=len(broken)) + found[-1].log_evidence)
        return mixed(list(zip(softmax(scores).tolist(), found, strict=True)))


def _candidates(evidence: Sequence[Evidence]) -> list[frozenset[str]]:
    """Return the sets of machines that may be broken, the most probable first: none, each alone, and the worst few."""
    failed = Counter(seen.machine for seen in evidence if seen.failed and seen.machine)
    total = Counter(seen.machine for seen in evidence if seen.machine)
    scores = {machine: _broken_score(failed[machine], total[machine]) for machine in failed}
    order = [machine for machine in sorted(scores) if scores[machine] > _LEAST_SCORE]
    order.sort(key=lambda machine: -scores[machine])
    sets = [frozenset(order[: place + 1]) for place in range(len(order))]
    sets += [frozenset([machine]) for machine in order[1:]]
    sets.sort(key=lambda broken: -sum(scores[machine] for machine in broken))
    return [frozenset(), *sets[:_MOST_MACHINE_HYPOTHESES]]


def _broken_score(failed: int, total: int) -> float:
    """Return the log odds that a machine is broken, if nothing else explained its failures."""
    from scipy.special import betaln  # the API imports this module, and needs it only after a failure

    ran = total - failed
    usual = betaln(OUTSIDE[0] + failed, OUTSIDE[1] + ran) - betaln(*OUTSIDE)
    return _log_broken(failed, ran, machines=1) - float(usual)


def _log_broken(failed: int, ran: int, *, machines: int) -> float:
    """Return the log prior that these machines are broken, plus the log evidence of their trials if they are."""
    from scipy.special import betaln  # the API imports this module, and needs it only after a failure

    evidence = betaln(_BROKEN[0] + failed, _BROKEN[1] + ran) - betaln(*_BROKEN)
    return float(machines * np.log(_BROKEN_ODDS) + evidence)


def _rate(space: Space, found: Rates, rows: Array) -> tuple[Array, Array]:
    """Return the rate of failures at rows, interpolated between the middles of cells, and its gradient."""
    value, gradient = np.full(len(rows), found.base), np.zeros(rows.shape)
    lines, squares = Grid(space, 1), Grid(space, 2)
    line, square = lines.neighbours(rows), squares.neighbours(rows)
    by_line, by_square = lines.slopes(rows), squares.slopes(rows)
    for axes, table in found.tables.items():
        if len(axes) == 1:
            (axis,) = axes
            first, second, share = (part[:, axis] for part in line)
            step = table[second] - table[first]
            value += table[first] + share * step
            gradient[:, axis] += by_line[:, axis] * step
            continue
        a, b = axes
        (a_low, b_low), (a_high, b_high), (s, t) = ((part[:, a], part[:, b]) for part in square)
        at_low = (1 - t) * table[a_low, b_low] + t * table[a_low, b_high]
        at_high = (1 - t) * table[a_high, b_low] + t * table[a_high, b_high]
        value += (1 - s) * at_low + s * at_high
        gradient[:, a] += by_square[:, a] * (at_high - at_low)
        by_t = (1 - s) * (table[a_low, b_high] - table[a_low, b_low])
        by_t += s * (table[a_high, b_high] - table[a_high, b_low])
        gradient[:, b] += by_square[:, b] * by_t
    return value, gradient
