"""The worker's side of the processes that run a person's function: forks of one that has imported it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Final

from hpo.errors import SetupError
from hpo.installation import python_command

from ..checkpoints.standby_logs import open_standby_log
from ..device.detection import Device
from ..errors import MachineError
from ..functions.entry import Entry
from .child import Child
from .template import MESSAGE_BYTES

_TEMPLATE: Final = "from workers.process.template import main; main()"
_ALONE: Final = "from workers.process.template import main_alone; main_alone()"
IMPORT_SECONDS: Final = 900.0
"""How long the import of a function may take: libraries on a network file system take minutes."""
FORK_SECONDS: Final = 60.0
UNKNOWN_END: Final = -int(signal.SIGKILL)
"""How a process is said to have ended whose template died first."""
_log = logging.getLogger(__name__)


class ForkedProcess:
    """A process that the template has forked, with what `Child` uses of `subprocess.Popen`."""

    def __init__(self, pid: int, watch: int, commands: int, template: _Template) -> None:
        self.pid = pid
        self.stdin = os.fdopen(commands, "w", encoding="utf-8")
        self.returncode: int | None = None
        self._watch = watch
        self._template = template
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return how the process ended; None while it runs."""
        return self._wait_up_to(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return its status.

        Raises:
            subprocess.TimeoutExpired: it runs on after `timeout` seconds.
        """
        found = self._wait_up_to(timeout)
        if found is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return found

    def kill(self) -> None:
        """Kill the process, if it runs."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                signal.pidfd_send_signal(self._watch, signal.SIGKILL)

    def _wait_up_to(self, seconds: float | None) -> int | None:
        with self._lock:
            if self.returncode is not None:
                return self.returncode
            watch = os.dup(self._watch)  # another thread may see the end first, and close it
        try:
            ready, _, _ = select.select([watch], [], [], seconds)
        finally:
            os.close(watch)
        if not ready:
            return None
        found = self._template.end_of(self.pid)
        with self._lock:
            if self.returncode is None:
                self.returncode = found
                os.close(self._watch)
            return self.returncode


class _Template:
    """The process that has imported the function."""

    def __init__(self, entry: Entry, device: Device) -> None:
        """Start it, and wait until it has imported the function.

        Raises:
            SetupError: the function cannot be imported; the message says why.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._answers: dict[int, tuple[int, int]] = {}
        self._ends: dict[int, int] = {}
        self._condition = threading.Condition()
        self._number = 0
        self._is_gone = False
        with theirs:
            self._process = subprocess.Popen(
                python_command(_TEMPLATE, str(theirs.fileno()), *entry.to_arguments()),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what an import prints is not for a program that reads the worker's output
                pass_fds=(theirs.fileno(),),
                env=_environment(device),
                start_new_session=True,
            )
        ours.settimeout(IMPORT_SECONDS)
        try:
            said = json.loads(ours.recv(MESSAGE_BYTES) or b'{"failed": "its process ended while it was imported"}')
        except TimeoutError:
            said = {"failed": f"its import took longer than {IMPORT_SECONDS / 60:.0f} minutes"}
        if "failed" in said:
            self.close()
            raise SetupError(
                said["failed"] if "--entry" in said["failed"] else f"--entry {entry.name}: {said['failed']}"
            )
        ours.settimeout(None)
        self.hindrance: str | None = said["hindrance"]
        self.version: str = said["version"]
        threading.Thread(target=self._listen, name="template", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    def fork(self, output: int) -> tuple[ForkedProcess, int]:
        """Return a new process that prints to `output`, and where its events can be read.

        Raises:
            MachineError: it did not come.
        """
        commands_read, commands = os.pipe()
        events, events_write = os.pipe()
        try:
            with self._condition:
                self._number += 1
                number = self._number
            socket.send_fds(
                self._socket, [json.dumps({"fork": number}).encode()], [commands_read, events_write, output]
            )
            with self._condition:
                self._condition.wait_for(lambda: number in self._answers or self._is_gone, FORK_SECONDS)
                found = self._answers.pop(number, None)
        except OSError:
            found = None
        finally:
            os.close(commands_read)
            os.close(events_write)
        if found is None:
            os.close(commands)
            os.close(events)
            raise MachineError(
                "no process can be started for the function: the one that has imported it does not answer"
            )
        pid, watch = found
        return ForkedProcess(pid, watch, commands, self), events

    def end_of(self, pid: int) -> int:
        """Return how a process ended that has ended."""
        with self._condition:
            self._condition.wait_for(lambda: pid in self._ends or self._is_gone, FORK_SECONDS)
            return self._ends.get(pid, UNKNOWN_END)  # kept: two threads may ask

    def close(self) -> None:
        """End it; processes that it has forked go on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                data, handles, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1)
            except OSError:
                data, handles = b"", []
            message: dict[str, Any] = json.loads(data) if data else {}
            with self._condition:
                if "forked" in message:
                    self._answers[message["forked"]] = message["pid"], handles[0]
                elif "exited" in message:
                    self._ends[message["exited"]] = message["returncode"]
                self._is_gone = not data
                self._condition.notify_all()
            if not data:
                return


class FunctionProcesses:
    """Provides the processes of trials that run one function."""

    def __init__(self, entry: Entry, device: Device, folder: Path) -> None:
        """Prepare; nothing is started yet. What a process prints before it has a job goes into `folder`."""
        self._entry = entry
        self._device = device
        self._folder = folder
        self._template: _Template | None = None

    def prepare(self) -> None:
        """Import the function, unless that is done.

        Raises:
            SetupError: it cannot be imported.
            MachineError: this machine cannot start a process.
        """
        if self._template is not None and (self._template.hindrance is not None or self._template.alive):
            return
        self.close()
        began = time.monotonic()
        try:
            self._template = _Template(self._entry, self._device)
        except OSError as error:
            raise MachineError(f"no process can be started ({error}); check the limits of this machine") from error
        seconds = time.monotonic() - began
        _log.info(
            "the function %s was imported in %.1f s (version %s)", self._entry.name, seconds, self._template.version
        )
        if self._template.hindrance is not None:
            why = self._template.hindrance
            _log.info("each trial imports it again, since a fork would not be safe: %s", why)

    def take(self) -> Child:
        """Return a process that waits for its job; it is the caller's to end.

        Raises:
            SetupError, MachineError: see `prepare`.
        """
        self.prepare()
        assert self._template is not None  # noqa: S101 - `prepare` made it
        if self._template.hindrance is not None:
            return Child.start(self._device, self._folder, code=_ALONE, arguments=self._entry.to_arguments())
        self._folder.mkdir(parents=True, exist_ok=True)
        log, output = open_standby_log(self._folder)
        with output:
            process, events = self._template.fork(output.fileno())
        return Child(process, os.fdopen(events, encoding="utf-8"), log)

    def close(self) -> None:
        """End what waits."""
        if self._template is not None:
            self._template.close()
            self._template = None


def _environment(device: Device) -> dict[str, str]:
    # As in a script of theirs, their modules may be looked for; see `Entry.folder`.
    return {name: value for name, value in device.environment().items() if name != "PYTHONSAFEPATH"}
