"""Why a training ended, derived from the exception that ended it: a failure of the trial, or a fault of the machine."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import ValidationError

from data import DatasetError
from hpo.trial import FailureKind, Fault
from models import ModelError

from ..errors import DivergedError, NotExportableError, TimeLimitError, WorkerError
from .fault_words import MAIN_MEMORY_WORDS, is_out_of_memory
from .faults import fault_of, may_be_out_of_memory, memory_was_short

MESSAGE_CHARACTERS = 20_000
"""Longest message that a trial's record takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a training ended, and a message: one sentence, followed by the traceback if the code may be at fault."""

    kind: FailureKind | Fault
    """A kind of failure ends the trial; a fault of the machine gives it back."""
    message: str


def classify(
    error: Exception, *, memory_was_short: Callable[[], bool] = lambda: False, on_gpu: bool = False
) -> Failure:
    """Return what an exception of the training process means.

    Args:
        memory_was_short: asked where an exception may be one of memory, among other causes.
        on_gpu: whether the trial trains on a GPU: then main memory that is missing is the machine's fault.
    """
    if on_gpu and _is_out_of_main_memory(error):
        problem = f"{type(error).__name__}: {_first_line(error)}"
        return Failure(
            kind=Fault.SYSTEM, message=f"the main memory of this machine, not of its GPU, is full ({problem})"
        )
    kind = _kind(error, memory_was_short)
    match kind:
        case FailureKind.INVALID if isinstance(error, ValidationError):
            message = _sentence(error)
        case FailureKind.OOM:
            message = f"the trial did not fit into memory: {_first_line(error)}"
        case FailureKind.ERROR | Fault.KERNEL:
            message = _with_traceback(error)
        case Fault.ARCHITECTURE:
            message = (
                f"the PyTorch of this machine was built without kernels for its GPU ({_first_line(error)}); install "
                "one with them, or train on another GPU"
            )
        case Fault.DEVICE | Fault.SYSTEM | Fault.STORAGE | Fault.PROCESS if not isinstance(
            error, DatasetError | WorkerError
        ):
            message = f"this machine failed, not the trial ({type(error).__name__}: {_first_line(error)})"
        case _:
            message = str(error)
    return Failure(kind=kind, message=message)


def _kind(error: Exception, memory_was_short: Callable[[], bool]) -> FailureKind | Fault:
    if isinstance(error, DivergedError):
        return FailureKind.DIVERGED
    if isinstance(error, TimeLimitError):
        return FailureKind.TIMEOUT
    if isinstance(error, ValidationError):
        return FailureKind.INVALID
    if is_out_of_memory(error) or (may_be_out_of_memory(error) and memory_was_short()):
        return FailureKind.OOM
    if (fault := fault_of(error)) is not None:
        return fault
    is_invalid = isinstance(error, ModelError | DatasetError | NotExportableError)
    return FailureKind.INVALID if is_invalid else FailureKind.ERROR


def ran_out_of_memory(error: Exception, device: torch.device) -> bool:
    """Return whether memory of `device` was missing, also where a library says no more than that it found no way."""
    if device.type == "cuda" and _is_out_of_main_memory(error):
        return False  # smaller parts on the GPU change nothing
    return is_out_of_memory(error) or (may_be_out_of_memory(error) and memory_was_short(device))


def _is_out_of_main_memory(error: BaseException) -> bool:
    """Return whether an allocation failed in main memory, and not on a GPU."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in MAIN_MEMORY_WORDS)


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
        f"{_key(found['loc'])}: {found['msg']}" for found in error.errors(include_url=False, include_input=False)
    ]
    return "the configuration is not valid: " + "; ".join(problems)


def _key(location: tuple[int | str, ...]) -> str:
    """Return a setting's flat name, without the names of the fields that hold options and weights of streams."""
    dotted = ".".join(str(part) for part in location)
    return dotted.replace("stream_weights.", "weights.").replace("hparams.", "model.")
