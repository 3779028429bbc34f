"""Processes that the kernel ends with the process that started them, however that ends."""

from __future__ import annotations

import ctypes
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
"""Of Linux's `prctl`."""


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends; one that was stopped is killed too."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
