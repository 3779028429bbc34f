"""Completing a partial guess of the user from a Sobol sequence, without a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..spec import StudySpec
from ..spec.rules import allowed
from ..trial import ENQUEUED, Params, ParamValue, Suggestion
from .cube import key_of, value_at
from .history import History
from .sobol import sobol_points

_SOBOL_EXPONENT: Final = 8
"""2 to this power points of the Sobol sequence are tried until one makes the configuration new."""


def leaves_open(spec: StudySpec, guess: Params) -> bool:
    """Return whether a guess lacks the value of an active parameter."""
    try:
        spec.check_params(guess)
    except ValueError:
        return True
    return False


def completed(history: History, guess: Params) -> Suggestion:
    """Return `guess` with the missing values of the first Sobol point that makes the configuration new and allowed.

    Points where trials clearly fail are left out. A complete guess is returned unchanged, even if it was tried before.
    """
    spec, runs, first = history.spec, history.runnability, None
    for params in _completions(spec, guess):
        first = params if first is None else first
        if key_of(params) not in history.taken and not (runs and runs.clearly_fails(params)):
            return Suggestion(params=params, generator=ENQUEUED)
    return Suggestion(params=first or dict(guess), generator=ENQUEUED)


def _completions(spec: StudySpec, guess: Params) -> Iterator[dict[str, ParamValue]]:
    """Yield the guess with the values of Sobol points that keep the rules, then with others moved to keep them."""
    points = sobol_points(len(spec.space), spec.optimizer.seed, _SOBOL_EXPONENT).tolist()
    drawn: list[dict[str, ParamValue]] = [
        {key: value_at(parameter, u) for (key, parameter), u in zip(spec.space.items(), point, strict=True)}
        for point in points
    ]
    yield from (params for values in drawn if spec.allows(params := spec.active({**values, **guess})))
    if spec.rulebook.rules:
        for values, kept in zip(drawn, allowed(spec.rulebook, guess), strict=False):
            yield spec.active({**values, **kept, **guess})
