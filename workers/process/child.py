"""The worker's side of a training process: start it, assign its job, receive its events, end it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

from pydantic import ValidationError

from hpo.installation import python_command
from hpo.trial import Fault

from ..checkpoints.shared import make_folder
from ..checkpoints.standby_logs import open_standby_log
from ..device.detection import Device
from ..device.main_memory import MemoryWatch, Shortage
from ..errors import MachineError
from .messages import EVENTS, Command, Event, Job, Note

_CHILD_CODE = "from workers.process.main import main; main()"
KILL_SECONDS = 60.0
_LOG_TAIL_BYTES = 2000
_log = logging.getLogger(__name__)
_HELD = {
    Shortage.OTHERS: "; other processes of this machine held more of it than this one",
    Shortage.ITSELF: ", most of it of this process",
    Shortage.UNKNOWN: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExited:
    """The training process ended."""

    returncode: int
    shortage: Shortage | None = None
    """Of main memory, if the kernel ended the process for that."""
    peak_bytes: int | None = None
    """The most main memory that the process held; known where it had taken most of it."""

    @property
    def fault(self) -> Fault:
        """What may be wrong with the machine."""
        if self.shortage is Shortage.OTHERS:
            return Fault.SYSTEM
        # The kernel sends SIGBUS where a file in memory cannot be read from its disk.
        return Fault.STORAGE if self.returncode == -signal.SIGBUS else Fault.PROCESS

    def __str__(self) -> str:
        if self.returncode >= 0:
            return f"the training process ended with status {self.returncode} without a result"
        if self.shortage is not None:
            return f"the kernel ended the training process because main memory was full{_HELD[self.shortage]}"
        return f"the training process was killed by {signal.Signals(-self.returncode).name}"


class Process(Protocol):
    """What is used of a process: a part of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


class Child:
    """A training process: it waits, ready, until it is assigned its one job."""

    def __init__(self, process: Process, events: IO[str], log: Path) -> None:
        self._process = process
        self._events = events
        self._listener: threading.Thread | None = None
        self._memory = MemoryWatch()
        self.log = log

    @classmethod
    def start(
        cls,
        device: Device,
        folder: Path,
        *,
        code: str = _CHILD_CODE,
        arguments: Sequence[str] = (),
        handles: Sequence[int] = (),
    ) -> Self:
        """Return a new process that imports what it needs and waits; before it has a job it prints into `folder`.

        It runs `code`, with the number of its pipe for events and `arguments`, and has `handles` of this process.
        """
        folder.mkdir(parents=True, exist_ok=True)
        log, output = open_standby_log(folder)
        read, write = os.pipe()
        try:
            with output:
                process = subprocess.Popen(
                    python_command(code, str(write), *arguments),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=(write, *handles),
                    env=device.environment(),
                    start_new_session=True,  # Ctrl-C in a terminal is for the worker alone
                    text=True,
                    encoding="utf-8",
                )
        finally:
            os.close(write)
        return cls(process, os.fdopen(read, encoding="utf-8"), log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def assign(self, job: Job, log: Path, deliver: Callable[[Event | ProcessExited], None]) -> None:
        """Assign the job; the process prints to `log`. A thread calls `deliver` per event, `ProcessExited` last.

        Raises:
            OSError: the folder of the log cannot be written.
        """
        make_folder(log.parent)
        self.log.replace(log)
        self.log = log
        self._begin(job, deliver)

    def _begin(self, job: Job, deliver: Callable[[Event | ProcessExited], None]) -> None:
        self._listener = threading.Thread(target=self._listen, args=(deliver,), name="events", daemon=True)
        self._listener.start()
        self._write(job.model_dump_json())

    def send(self, command: Command) -> None:
        """Send a command; it is dropped if the process has ended."""
        self._write(command.model_dump_json())

    def end(self, *, patience_seconds: float = 0.0) -> None:
        """Wait `patience_seconds` for the process to end, then kill it. It has ended when this returns.

        A process that waits for a dead disk cannot be killed; after some seconds it is left behind, and logged.
        """
        try:
            self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                self._process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                _log.warning("the training process %d does not end although it was killed", self.pid)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._listener is None:
            self._events.close()
            self.log.unlink(missing_ok=True)

    def log_tail(self) -> str:
        """Return the last 2 kB of what the process printed; empty if there is no log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
                return file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _write(self, line: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - it was started with a pipe
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # `ProcessExited` reports that it has ended

    def _listen(self, deliver: Callable[[Event | ProcessExited], None]) -> None:
        with self._events:
            for line in self._events:
                try:
                    deliver(EVENTS.validate_json(line))
                except ValidationError:
                    # A process that is killed while it writes leaves half a line.
                    deliver(Note(text=f"an incomplete message from the training process: {line[:200]!r}", warning=True))
        returncode = self._process.wait()
        shortage = self._memory.shortage() if returncode == -signal.SIGKILL else None
        deliver(ProcessExited(returncode=returncode, shortage=shortage, peak_bytes=self._memory.peak_bytes))


class StandbyProcess:
    """Keeps one process ready, so that a trial does not wait for the import of PyTorch."""

    def __init__(self, device: Device, folder: Path) -> None:
        self._device = device
        self._folder = folder
        self._standby: Child | None = None

    def prepare(self) -> None:
        """Start a process, unless one is ready.

        Raises:
            MachineError: this machine cannot start one.
        """
        if self._standby is None or not self._standby.alive:
            self.close()
            try:
                self._standby = Child.start(self._device, self._folder)
            except OSError as error:
                raise MachineError(
                    f"no training process can be started ({error}); check the disk of {self._folder} and the limits of "
                    "this machine"
                ) from error

    def take(self) -> Child:
        """Return the process that is ready, or a new one; it is the caller's to end.

        Raises:
            MachineError: this machine cannot start one.
        """
        self.prepare()
        child, self._standby = self._standby, None
        assert child is not None  # noqa: S101 - `prepare` started it
        return child

    def close(self) -> None:
        """End the process that is ready."""
        if self._standby is not None:
            self._standby.end()
            self._standby = None
