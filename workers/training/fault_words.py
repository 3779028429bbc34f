"""The words and numbers by which exceptions say that memory is missing, or that a machine failed. Needs no torch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from data.errors import DISK_ERRORS
from hpo.trial import Fault

_MEMORY_TYPES = frozenset({"OutOfMemoryError", "MemoryError"})
MAIN_MEMORY_WORDS = (
    "defaultcpuallocator",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "host_allocation_failed",
)
_MEMORY_WORDS = (
    *MAIN_MEMORY_WORDS,
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "device_allocation_failed",
    "cudaerrormemoryallocation",
)
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
MEMORY_OR_KERNEL_WORDS: Final = (
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
    (Fault.KERNEL, (*_KERNEL_WORDS, *MEMORY_OR_KERNEL_WORDS)),
    (Fault.PROCESS, _PROCESS_WORDS),
)
"""The first that fits counts."""


def shown_fault(error: BaseException) -> Fault | None:
    """Return the fault of the machine that an exception, or one that led to it, names; None if none does."""
    return next((fault for found in _chain(error) if (fault := _fault_shown(found)) is not None), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on a GPU or in main memory, in the words of PyTorch, NumPy or the system."""
    if any(kind.__name__ in _MEMORY_TYPES for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _MEMORY_WORDS)


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
