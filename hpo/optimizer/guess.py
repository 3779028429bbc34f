"""The configuration that a person's guess stands for, where the guess leaves parameters open."""

from __future__ import annotations

from typing import Final

from ..spec import StudySpec
from ..trial import ENQUEUED, Params, ParamValue, Suggestion
from .cube import key_of, value_at
from .history import History
from .sobol import sobol_points

_EXPONENT: Final = 8
"""2 to this power points of the Sobol sequence are tried for one that makes the configuration new."""


def leaves_open(spec: StudySpec, guess: Params) -> bool:
    """Whether a guess is less than a whole configuration."""
    try:
        spec.check_params(guess)
    except ValueError:
        return True
    return False


def completed(history: History, guess: Params) -> Suggestion:
    """Return the configuration with the values of `guess`, and the others of the first Sobol point that makes it new.

    A guess that leaves nothing open is taken as it is, also when it was tried before.
    """
    spec, first = history.spec, None
    for point in sobol_points(len(spec.space), spec.optimizer.seed, _EXPONENT):
        drawn: dict[str, ParamValue] = {
            key: value_at(parameter, u) for (key, parameter), u in zip(spec.space.items(), point.tolist(), strict=True)
        }
        params = spec.active({**drawn, **guess})
        first = params if first is None else first
        if key_of(params) not in history.taken:
            return Suggestion(params=params, generator=ENQUEUED)
    return Suggestion(params=first or dict(guess), generator=ENQUEUED)
