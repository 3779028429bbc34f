"""Why a trial failed, derived from the exception that ended it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from pydantic import ValidationError

from data import DatasetError
from hpo.trial import FailureKind
from models import ModelError

from ..errors import DivergedError, TimeLimitError

MESSAGE_CHARACTERS = 20_000
"""Longest message that a trial's record takes."""
_MEMORY_TYPES = frozenset({"OutOfMemoryError", "MemoryError"})
_MEMORY_WORDS = (
    "defaultcpuallocator",
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudaerrormemoryallocation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure's kind and its message: one sentence, followed by the traceback if the code may be at fault."""

    kind: FailureKind
    message: str


def classify(error: Exception) -> Failure:
    """Return the kind of failure that an exception of the training process means, and its message."""
    if isinstance(error, DivergedError):
        return Failure(kind=FailureKind.DIVERGED, message=str(error))
    if isinstance(error, TimeLimitError):
        return Failure(kind=FailureKind.TIMEOUT, message=str(error))
    if isinstance(error, ValidationError):
        return Failure(kind=FailureKind.INVALID, message=_sentence(error))
    if isinstance(error, ModelError | DatasetError):
        return Failure(kind=FailureKind.INVALID, message=str(error))
    if _is_out_of_memory(error):
        return Failure(kind=FailureKind.OOM, message=f"the trial did not fit into memory: {_first_line(error)}")
    return Failure(kind=FailureKind.ERROR, message=_with_traceback(error))


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on a GPU or in main memory, in the words of PyTorch, NumPy or the system."""
    if any(kind.__name__ in _MEMORY_TYPES for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _MEMORY_WORDS)


def _with_traceback(error: Exception) -> str:
    """Return one line and the traceback, cut in the middle where it is longer than `MESSAGE_CHARACTERS`."""
    text = "".join(traceback.format_exception(error))
    head = f"{type(error).__name__}: {_first_line(error)}\n"
    room = MESSAGE_CHARACTERS - len(head)
    if len(text) > room:
        cut = "\n[...]\n"
        text = text[: room // 2 - len(cut)] + cut + text[-(room // 2) :]
    return head + text


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [""])[0]
    return line[:1000]


def _sentence(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(str(part) for part in found['loc']).replace('hparams.', 'model.')}: {found['msg']}"
        for found in error.errors(include_url=False, include_input=False)
    ]
    return "the configuration is not valid: " + "; ".join(problems)
