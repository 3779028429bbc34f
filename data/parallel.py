"""Work on many files at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def in_threads(work: Callable[[J], R], jobs: Sequence[J]) -> Iterator[R]:
    """Yield `work(job)` for every job in order, on all cores.

    FFmpeg and NumPy work without the interpreter's lock, so threads are as good as processes here.
    An error or an interrupt leaves the jobs undone that have not begun.
    """
    pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="data")
    try:
        yield from pool.map(work, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
