"""What an exception of a person's function means: a failure of the trial, or a fault of the machine."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from hpo.functions.trial import FunctionError, NotFiniteError
from hpo.trial import FailureKind, Fault

from ..errors import CheckpointWriteError, TimeLimitError
from ..training.fault_words import is_out_of_memory, shown_fault

MESSAGE_CHARACTERS: Final = 20_000
"""Longest message that a trial's record takes."""
_KNOWN: Final[Mapping[type[BaseException], FailureKind | Fault]] = {
    NotFiniteError: FailureKind.DIVERGED,
    TimeLimitError: FailureKind.TIMEOUT,
    CheckpointWriteError: Fault.STORAGE,
}
_OURS: Final = Path(__file__).resolve().parents[2]


def classify(error: BaseException) -> tuple[FailureKind | Fault, str]:
    """Return what an exception means, and a message: one sentence, then the traceback where the function is at fault.

    Of system errors only those of a disk or of the operating system are the machine's: that a file is missing may be
    the function's own mistake.
    """
    try:
        return _classify(error)
    except Exception as broken:  # the exception is of a class of the person's, whose text is made by its own code
        head = f"{type(error).__name__}, whose text cannot be shown (it raises {type(broken).__name__})"
        return FailureKind.ERROR, _joined(head, _traceback(error))


def _classify(error: BaseException) -> tuple[FailureKind | Fault, str]:
    line = _first_line(error)
    known = next((kind for kinds, kind in _KNOWN.items() if isinstance(error, kinds)), None)
    if known is not None:
        return known, line
    if is_out_of_memory(error):
        return FailureKind.OOM, f"the trial did not fit into memory: {type(error).__name__}: {line}"
    fault = shown_fault(error)
    if fault is Fault.KERNEL:
        return fault, with_traceback(error)
    if fault is not None:
        return fault, f"this machine failed, not the trial ({type(error).__name__}: {line})"
    if isinstance(error, SystemExit):
        return FailureKind.ERROR, _joined(f"the function called sys.exit({error.code!r})", _traceback(error))
    return FailureKind.ERROR, with_traceback(error)


def with_traceback(error: BaseException) -> str:
    """Return a line about an exception, and its traceback from the function on."""
    head = _first_line(error) if isinstance(error, FunctionError) else f"{type(error).__name__}: {_first_line(error)}"
    return _joined(head, _traceback(error))


def traceback_of_import(error: BaseException) -> str:
    """Return the traceback of what the import of a person's module raised, without the calls that import it."""
    return _traceback(error)


def _joined(head: str, text: str) -> str:
    """Return a line and a text, which is cut in the middle where both are longer than `MESSAGE_CHARACTERS`."""
    room = MESSAGE_CHARACTERS - len(head) - 1
    if len(text) > room:
        cut = "\n[...]\n"
        text = text[: room // 2 - len(cut)] + cut + text[-(room // 2) :]
    return f"{head}\n{text}"


def _traceback(error: BaseException) -> str:
    """Return the traceback of an exception without the calls of ours that lead to the function."""
    where = _in_function(error.__traceback__)
    return "".join(traceback.format_exception(type(error), error, where)).rstrip()


def _in_function(where: TracebackType | None) -> TracebackType | None:
    found = where
    while found is not None and _is_ours(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    # A mistake of syntax has no call of the person's; its text says where it is.
    return found


def _is_ours(file: str) -> bool:
    """Return whether a call of that file leads to the function: of ours, or of Python's own import."""
    return (
        file.startswith("<frozen importlib")
        or file == importlib.__file__
        or Path(file).is_relative_to(_OURS / "workers")
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:1000]
