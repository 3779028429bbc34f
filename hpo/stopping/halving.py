"""Successive halving and Hyperband over learning curves: rungs, brackets, and which trials pass a rung.

The rules are those of Optuna's `SuccessiveHalvingPruner` and `HyperbandPruner`, derived from the curves alone: a
trial's value at a rung is the one of the first step reported at or after it, so a resumed trial whose report of the
rung was lost is judged by the next one.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterator, Sequence
from functools import cache

from ..spec import StudySpec
from ..spec.study import AshaStopping, HyperbandStopping
from .curve_model import Curve


def halving_stops(rungs: Sequence[int], reduction: int, own: Curve, rivals: Sequence[Curve]) -> bool:
    """Return whether a curve that has just reached a rung is outside the best 1/`reduction` there; more is better.

    The best of a rung always passes (Li et al., 2020, A system for massively parallel hyperparameter tuning,
    Algorithm 2, as a stopping rule).
    """
    value = own[max(own)]
    for rung in judged_rungs(rungs, own):
        there = sorted([value, *(curve[step] for curve in rivals if (step := _first_at(curve, rung)))], reverse=True)
        if value < there[max(len(there) // reduction, 1) - 1]:
            return True
    return False


def judged_rungs(rungs: Sequence[int], own: Curve) -> list[int]:
    """Return the rungs at which the last value of a curve counts; at those before it was judged before."""
    last = max(own, default=0)
    return [rung for rung in rungs if rung <= last and _first_at(own, rung) == last]


def value_at(curve: Curve, rung: int) -> float | None:
    """Return the first value of a curve at or after a rung; None before it has come there."""
    step = _first_at(curve, rung)
    return None if step is None else curve[step]


def rungs_of(spec: StudySpec, number: int) -> tuple[int, ...]:
    """Return the rungs of the bracket of trial `number` under ASHA or Hyperband, up to the last epoch."""
    rule = spec.early_stopping
    if not isinstance(rule, AshaStopping | HyperbandStopping):
        return ()
    return tuple(_rungs(rule.min_epochs * rule.reduction ** bracket_of(spec, number), rule.reduction, spec.task.epochs))


def bracket_of(spec: StudySpec, number: int) -> int:
    """Return the bracket of a trial: 0 but for Hyperband.

    Hyperband shares trials out over its brackets in the ratio of Li et al. (2018), Algorithm 1, drawing from a
    checksum of study and number, as Optuna's `HyperbandPruner` does; each bracket is successive halving by itself.
    """
    rule = spec.early_stopping
    if not isinstance(rule, HyperbandStopping):
        return 0
    shares = _bracket_shares(rule.min_epochs, spec.task.epochs, rule.reduction)
    draw = binascii.crc32(f"{spec.name}_{number}".encode()) % sum(shares)
    for bracket, share in enumerate(shares):
        draw -= share
        if draw < 0:
            return bracket
    raise AssertionError("a draw is less than the sum of the shares")


def _rungs(step: int, reduction: int, last: int) -> Iterator[int]:
    while step <= last:
        yield step
        step *= reduction


@cache
def _bracket_shares(least: int, most: int, reduction: int) -> tuple[int, ...]:
    count = math.floor(math.log(most / least, reduction)) + 1
    return tuple(math.ceil(count * reduction**s / (s + 1)) for s in reversed(range(count)))


def _first_at(curve: Curve, rung: int) -> int | None:
    return min((step for step in curve if step >= rung), default=None)
