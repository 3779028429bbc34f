"""Keeping processes running beside this one: started again when they end, and ended with it, also when it is killed."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

log = logging.getLogger("hpo.serve")

RESTART_SECONDS = 2.0
STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is kept running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    first_line: str = ""
    """What each process reads from its standard input first, which only this process holds: the end of it is theirs."""
    descriptors: Sequence[int] = ()
    """Open files that it inherits, under the same numbers."""
    on_end: Callable[[subprocess.Popen[bytes]], None] = field(default=lambda _: None)
    """Called when a process has ended although nobody wanted it to."""


@contextmanager
def kept_running(program: Program, *, count: int = 1) -> Iterator[None]:
    """Run `count` processes of a program while the block runs; afterwards ask all of them to end, and wait for that."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=_keep_running, args=(program, stop), name=f"{program.name}-{place}")
        for place in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _keep_running(program: Program, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            process = _start(program)
        except OSError as error:  # no memory, or too many open files or processes, for now
            log.error("a process of %s cannot be started (%s); this is tried again", program.name, error)
            stop.wait(RESTART_SECONDS)
            continue
        while process.poll() is None and not stop.wait(_LOOK_SECONDS):
            pass
        if stop.is_set():
            _end(process)
            return
        program.on_end(process)
        stop.wait(RESTART_SECONDS)


def _start(program: Program) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        program.command, env=program.environment, stdin=subprocess.PIPE, pass_fds=tuple(program.descriptors)
    )
    if program.first_line and process.stdin is not None:
        with suppress(BrokenPipeError):  # it has ended, which the caller finds next
            process.stdin.write(program.first_line.encode() + b"\n")
            process.stdin.flush()
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
