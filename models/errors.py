"""Errors of the models package.

::

    ModelError (ValueError)
    ├── UnknownModelError      no model has this name
    ├── InvalidModelError      a hyperparameter, or a combination of them, that cannot be built
    │   └── InvalidClipError   a clip with a shape that the model cannot take
    └── WeightsError           a weights file that cannot be read or does not fit
        └── WeightsUnavailableError   it is not on this machine, or other bytes are

Every message is one sentence that says what is wrong and what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModelError(ValueError):
    """The model cannot be created or used in this way."""


class UnknownModelError(ModelError):
    """No model has this name."""


class InvalidModelError(ModelError):
    """The hyperparameters do not describe a model that can be built."""


class InvalidClipError(InvalidModelError):
    """The clip's shape does not fit the model."""


class WeightsError(ModelError):
    """The weights file cannot be read or does not fit the model."""


class WeightsUnavailableError(WeightsError):
    """The weights file is not on this machine, or the file there has other bytes than are wanted."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for words similar to `word`, else an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    if not matches:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"
