"""Whether trials may be forks of the process that has imported a person's function."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Final

_NOT_FORKED: Final = ("jax", "tensorflow")
"""Libraries that start threads of their own when they are imported, which a fork does not have."""
_PROBE_SECONDS: Final = 5.0
"""A probe that works ends within milliseconds."""
_MAPPED: Final = "/proc/self/maps"


def hindrance() -> str | None:
    """Return why a fork of this process would not be safe; None if it is."""
    found = next((name for name in _NOT_FORKED if name in sys.modules), None)
    if found is not None:
        return f"{found} was imported"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "its import used the GPU"
    others = threading.active_count() - 1
    if others:
        return f"its import started {others} thread{'s' if others > 1 else ''}"
    if not all(_computes_in_a_fork(path) for path in _libraries_of_threads()):
        return "its import computed with several threads (OpenMP), for which a fork would wait for ever"
    return None


def _libraries_of_threads() -> Iterator[str]:
    """Yield the paths of GNU's OpenMP that this process has loaded: packages bring copies of their own."""
    with open(_MAPPED, encoding="utf-8", errors="surrogateescape") as lines:
        paths = {line.split(maxsplit=5)[5].rstrip("\n") for line in lines if "libgomp" in line}
    yield from sorted(paths)


def _computes_in_a_fork(library: str) -> bool:
    """Return whether a fork can compute with two threads: a library that did so before waits for those that it had."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):  # the fork must never come back as a second worker
            # What is computed is nothing: each thread asks for the number of the process.
            ctypes.CDLL(library).GOMP_parallel(ctypes.CDLL(None).getpid, None, 2, 0)
        os._exit(0)
    watch = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([watch], [], [], _PROBE_SECONDS)
    finally:
        os.close(watch)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return bool(ended)
