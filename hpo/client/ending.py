"""Closing what is open when a program ends, SIGTERM among the ways to end: trials then go to others at once."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from types import FrameType
from typing import Protocol
from weakref import WeakSet


class _Closable(Protocol):
    def close(self) -> None: ...


_open: WeakSet[_Closable] = WeakSet()
_set_up_in: int | None = None


def close_at_end(thing: _Closable) -> None:
    """Have `close` called when this process ends by itself, by Ctrl-C or by SIGTERM; it may be called before, too.

    SIGTERM then raises `SystemExit` in the main thread, unless the program has a handler of its own.
    """
    global _set_up_in  # noqa: PLW0603 - once in a process
    if _set_up_in is None:
        atexit.register(_close_all)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)
    _set_up_in = os.getpid()
    _open.add(thing)


def _close_all() -> None:
    if os.getpid() == _set_up_in:
        for thing in list(_open):
            thing.close()


def _exit(number: int, _: FrameType | None) -> None:
    if os.getpid() == _set_up_in:
        raise SystemExit(128 + number)
    # A process that the program has forked: what was open before the fork is its parent's.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
