"""Keeping workers of this machine running: started again after crashes, and ended in order, or at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..installation import (
    EXIT_MACHINE,
    EXIT_TOKEN,
    EXIT_USAGE,
    ending_with_parent,
    start_in_background,
)
from ..plain_text import plain
from .signals import Signals, asked_to_end
from .worker import WorkerCommand

LOOK_SECONDS: Final = 0.2
FIRST_WAIT_SECONDS: Final = 1.0
MOST_WAIT_SECONDS: Final = 60.0
WELL_SECONDS: Final = 120.0
"""A worker that has run for so long has started well: what it dies of is not what the ones before it died of."""
MOST_FAILURES: Final = 8
"""In a row, each within `WELL_SECONDS`: a worker that cannot start is given up, after about four minutes."""
_TAIL_BYTES: Final = 4096
_AT_ONCE_SECONDS: Final = 3.0
_FINAL: Final[Mapping[int, str]] = {
    EXIT_USAGE: "its options are wrong",
    EXIT_TOKEN: "the token is refused",
    EXIT_MACHINE: "the machine cannot train",
}
"""Exit statuses of a worker that would end in the same way again, and what they mean."""

SlotState = Literal["waiting", "running", "ended", "given up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happened to a worker, as a sentence."""

    worker: str
    sentence: str
    is_fault: bool = False


class Slot:
    """The place of one worker: its process, or the time at which the next one starts."""

    def __init__(self, command: WorkerCommand, *, log: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self.log = log
        self.state: SlotState = "waiting"
        self.restarts = 0
        self.status: int | None = None
        """That of the process that ended last; below 0 the signal that ended it."""
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = True
        self._failures = 0
        self._started_at = 0.0
        self.starts_at = 0.0
        """When the next process starts, by the clock of `step`, while the state is `waiting`."""

    @property
    def pid(self) -> int | None:
        """The number of its process, while that runs."""
        return None if self._process is None else self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether no process runs, and none will be started."""
        return self.state in ("ended", "given up")

    def step(self, now: float) -> Change | None:
        """Start a process if it is time for that, and notice that one has ended; return what happened.

        The thread that calls this must live as long as the worker: its end is the worker's.
        """
        if self.state == "waiting" and now >= self.starts_at:
            return self._start(now)
        if self._process is not None and (status := self._process.poll()) is not None:
            self._process = None
            return self._ended(status, now)
        return None

    def drain(self) -> None:
        """Ask the worker to give its trial back and end; a second time, to end at once. None is started any more."""
        if self._process is not None:
            # A second SIGTERM soon after the first may be meant as the same.
            self._process.send_signal(signal.SIGTERM if self._is_wanted else signal.SIGINT)
        elif not self.is_over:
            self.state = "ended"
        self._is_wanted = False

    def kill(self) -> None:
        """End the worker without asking."""
        if self._process is not None:
            self._process.kill()

    def _start(self, now: float) -> Change:
        arguments = ending_with_parent(self.command.arguments(), on=self.command.cores)
        again = self.status is not None
        self._started_at = now
        try:
            self._process = start_in_background(arguments, log=self.log, environment=self._environment, append=again)
        except OSError as error:  # no memory, or too many processes, for now
            return self._failed(f"cannot be started ({error.strerror})", now)
        self.state = "running"
        self.restarts += again
        return Change(worker=self.command.name, sentence=f"started{' again' * again} (pid {self._process.pid})")

    def _ended(self, status: int, now: float) -> Change:
        self.status = status
        if status == 0 or not self._is_wanted:
            self.state = "ended"
            return Change(worker=self.command.name, sentence=f"ended{f' with {_described(status)}' if status else ''}")
        if status in _FINAL:
            self.state = "given up"
            sentence = f"ended with status {status}: {_FINAL[status]}{self._reason()}; see {self.log}"
            return Change(worker=self.command.name, sentence=sentence, is_fault=True)
        return self._failed(f"ended with {_described(status)}{self._reason() if status > 0 else ''}", now)

    def _reason(self) -> str:
        """Return what a process that ended by itself has said last, in parentheses."""
        said = last_line(self.log)
        return f" ({said})" if said else ""

    def _failed(self, how: str, now: float) -> Change:
        self._failures = 1 if now - self._started_at >= WELL_SECONDS else self._failures + 1
        if self._failures >= MOST_FAILURES:
            self.state = "given up"
            sentence = f"{how}, {self._failures} times in a row, and is given up; see {self.log}"
            return Change(worker=self.command.name, sentence=sentence, is_fault=True)
        seconds = min(MOST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (self._failures - 1))
        seconds *= random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, protects no secret
        self.state, self.starts_at = "waiting", now + seconds
        sentence = f"{how}; started again in {seconds:.0f} s; see {self.log}"
        return Change(worker=self.command.name, sentence=sentence, is_fault=True)


class Supervisor:
    """Keeps the workers of all slots running until each is over."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = slots
        self._kills_at: float | None = None

    def run(self, *, on_change: Callable[[Change], None], on_look: Callable[[], None] = lambda: None) -> None:
        """Run the workers until each is over; SIGTERM or Ctrl-C drains them, a second one ends them at once.

        Only the main thread can call this.

        Args:
            on_change: called with what happened.
            on_look: called about five times a second.
        """
        with asked_to_end() as signals:
            while True:
                self._obey(signals, time.monotonic())
                for slot in self.slots:
                    if (change := slot.step(time.monotonic())) is not None:
                        on_change(change)
                on_look()
                if all(slot.is_over for slot in self.slots):
                    return
                signals.wait(LOOK_SECONDS)

    def _obey(self, signals: Signals, now: float) -> None:
        """Do what the signals ask for that have come so far; from the third on, they ask for nothing more."""
        while (number := signals.take()) is not None and number <= 2:
            for slot in self.slots:
                slot.drain()
            if number == 2:
                self._kills_at = now + _AT_ONCE_SECONDS
        if self._kills_at is not None and now >= self._kills_at:
            for slot in self.slots:
                slot.kill()


def exit_status(slots: Sequence[Slot]) -> int:
    """Return 0 if every worker ended in order, else the status of the first that was given up; 1 after a signal."""
    return next((max(slot.status or 1, 1) for slot in slots if slot.state == "given up"), 0)


def _described(status: int) -> str:
    return f"status {status}" if status >= 0 else f"the signal {signal.Signals(-status).name}"


def last_line(log: Path) -> str:
    """Return, as plain text, the last line of a log that is not empty; an empty text where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(-min(_TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return plain(next((line.strip() for line in reversed(lines) if line.strip()), ""))
