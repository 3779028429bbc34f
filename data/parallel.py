"""Work on many files in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def in_threads(work: Callable[[J], R], jobs: Sequence[J], *, at_once: int | None = None) -> Iterator[R]:
    """Yield `work(job)` for every job in order, on all cores, or `at_once` of them at the same time.

    FFmpeg and NumPy release the interpreter's lock, so threads are as fast as processes here.
    After an error or an interrupt no further job begins.
    """
    pool = ThreadPoolExecutor(at_once or os.cpu_count(), thread_name_prefix="data")
    try:
        yield from pool.map(work, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
