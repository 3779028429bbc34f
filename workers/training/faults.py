"""Which exceptions of a training process are a fault of its machine: its GPU, its disks, its operating system."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

import torch

from data import DISK_ERRORS, CacheError, DatasetNotFoundError
from hpo.trial import Fault
from models import WeightsUnavailableError

from ..errors import CheckpointWriteError

SHORT_SHARE: Final = 0.1
"""Memory counts as used up when less than this share of the GPU's was left at the peak: convolutions need workspace."""
_SYSTEM_ERRORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOLCK})
_SPEAKING_PACKAGES: Final = frozenset({"torch", "lmdb", "sqlite3", "safetensors", "av"})
"""Those whose exceptions, of any class, say in words what CUDA or the system has reported."""
_ARCHITECTURE_WORDS: Final = (
    "no kernel image is available",
    "is not compatible with the current pytorch installation",
    "status_arch_mismatch",
)
_DEVICE_WORDS: Final = (
    "no cuda gpus are available",
    "no cuda-capable device is detected",
    "busy or unavailable",
    "ecc error",
    "nvlink",
    "nvidia driver",
    "cuda driver version is insufficient",
    "driver shutting down",
    "system has unsupported display driver",
    "unsupported toolchain",
    "cuda error: unknown error",
    "cuda unknown error",
    "cuda error: initialization error",
    "cuda error: invalid device ordinal",
    "cuda error: system not yet initialized",
    "hardware stack error",
    "device is lost",
    "gpu is lost",
    "requires reset",
    "can't initialize nvml",
    "fallen off the bus",
    "nvrm: xid",
    "external device",
    "os call failed",
    "context is destroyed",
    "mps server",
    "mps client",
    "forward compatibility was attempted",
    "cuda call failed lazily at initialization",
    "cudaerrordevicesunavailable",
)
_KERNEL_WORDS: Final = (
    "an illegal memory access",
    "unspecified launch failure",
    "launch timed out",
    "misaligned address",
    "an illegal instruction",
    "invalid program counter",
    "invalid address space",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
    "cudnn_status_execution_failed",
    "cudnn_status_mapping_error",
    "nccl error",
)
_PROCESS_WORDS: Final = (
    "is killed by signal: killed",
    "is killed by signal: segmentation fault",
    "exited unexpectedly",
)
"""Of a process that reads data for the training process."""
_STORAGE_WORDS: Final = (
    "no space left on device",
    "input/output error",
    "disk i/o error",
    "stale file handle",
    "read-only file system",
    "disk quota exceeded",
    "database or disk is full",
    "a readonly database",
    "transport endpoint is not connected",
    "signal: bus error",
)
"""A disk, or the memory that takes the place of one (`/dev/shm`)."""
_SYSTEM_WORDS: Final = (
    "can't start new thread",
    "too many open files",
    "items of ancdata",
    "resource temporarily unavailable",
    "unable to open shared memory object",
    "sublibrary_loading_failed",
    "sublibrary_version_mismatch",
    "could not load library",
)
_MEMORY_OR_KERNEL_WORDS: Final = (
    "unable to find an engine",
    "unable to find a valid cudnn algorithm",
    "cudnn_status_internal_error",
    "cudnn_status_not_initialized",
    "cublas_status_not_initialized",
    "cusolver_status_not_initialized",
    "nvml_success == r",
)
"""What convolutions and libraries say where memory for their workspace is missing, among other causes."""

_WORDS: Final = (
    (Fault.ARCHITECTURE, _ARCHITECTURE_WORDS),
    (Fault.DEVICE, _DEVICE_WORDS),
    (Fault.STORAGE, _STORAGE_WORDS),
    (Fault.SYSTEM, _SYSTEM_WORDS),
    (Fault.KERNEL, (*_KERNEL_WORDS, *_MEMORY_OR_KERNEL_WORDS)),
    (Fault.PROCESS, _PROCESS_WORDS),
)
"""The first that fits counts."""


def fault_of(error: BaseException) -> Fault | None:
    """Return the fault of the machine that an exception shows, itself or through its cause; None for any other."""
    shown = next((fault for found in _chain(error) if (fault := _fault_shown(found)) is not None), None)
    if shown is not None:
        return shown
    if isinstance(error, DatasetNotFoundError | WeightsUnavailableError):
        return Fault.FILES
    if isinstance(error, CacheError | CheckpointWriteError):
        return Fault.STORAGE
    if isinstance(error, OSError):
        return Fault.SYSTEM if error.filename is None else Fault.STORAGE
    return None


def may_be_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception has the words of a missing workspace, which has other causes too."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_OR_KERNEL_WORDS)


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


def _fault_shown(error: BaseException) -> Fault | None:
    """Return the fault that the number of a system error or the words of a message name."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return Fault.STORAGE
    if isinstance(error, OSError) and error.errno in _SYSTEM_ERRORS:
        return Fault.SYSTEM
    speaks = isinstance(error, RuntimeError) or type(error).__module__.partition(".")[0] in _SPEAKING_PACKAGES
    return _fault_of_words(str(error).lower()) if speaks else None


def _fault_of_words(text: str) -> Fault | None:
    """Return the fault that a lower-case message of PyTorch, CUDA or a database names."""
    return next((fault for fault, known in _WORDS if any(words in text for words in known)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
