"""Which exceptions of a training process are a fault of its machine: its GPU, its disks, its operating system."""

from __future__ import annotations

from typing import Final

import torch

from data import CacheError, DatasetNotFoundError
from hpo.errors import SetupError
from hpo.trial import Fault
from models import WeightsUnavailableError

from ..errors import CheckpointWriteError
from .fault_words import MEMORY_OR_KERNEL_WORDS, shown_fault

SHORT_SHARE: Final = 0.1
"""Memory counts as used up when less than this share of the GPU's was left at the peak: convolutions need workspace."""


def fault_of(error: BaseException) -> Fault | None:
    """Return the fault of the machine that an exception shows, itself or through its cause; None for any other."""
    shown = shown_fault(error)
    if shown is not None:
        return shown
    if isinstance(error, DatasetNotFoundError | WeightsUnavailableError | SetupError):
        return Fault.FILES
    if isinstance(error, CacheError | CheckpointWriteError):
        return Fault.STORAGE
    if isinstance(error, OSError):
        return Fault.SYSTEM if error.filename is None else Fault.STORAGE
    return None


def may_be_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception has the words of a missing workspace, which has other causes too."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in MEMORY_OR_KERNEL_WORDS)


def memory_was_short(device: torch.device) -> bool:
    """Return whether the memory of a GPU was used up: an allocation failed, or at the peak hardly any was left.

    Of a GPU that does not answer any more it is not known: False.
    """
    if device.type != "cuda":
        return False
    try:
        stats = torch.cuda.memory_stats(device)
        if stats.get("num_ooms", 0) or stats.get("num_alloc_retries", 0):
            return True
        free, total = torch.cuda.mem_get_info(device)
        reserved, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    except RuntimeError:
        return False
    left_at_peak = free + reserved - peak
    return bool(left_at_peak < SHORT_SHARE * total)
