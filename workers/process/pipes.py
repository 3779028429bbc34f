"""The child's ends of its pipes: where events go, and where commands come from."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import IO

from .messages import Command, Event

ORPHANED = 3
"""Exit status of a child whose worker has ended."""
LOST_OTHERS = 4
"""Exit status of one of several ranks that has nothing to say but that another one is gone."""


class EventPipe:
    """Sends events to the worker. When the worker has ended, sending ends this process with status `ORPHANED`."""

    def __init__(self, handle: int) -> None:
        self._file = os.fdopen(handle, "w", encoding="utf-8")
        self._lock = threading.Lock()

    def send(self, event: Event) -> None:
        """Send one event."""
        with self._lock:
            try:
                self._file.write(event.model_dump_json() + "\n")
                self._file.flush()
            except BrokenPipeError:
                os._exit(ORPHANED)


class Mailbox:
    """Receives commands, in a thread. When the worker has ended, this process ends with status `ORPHANED`."""

    on_request: Callable[[], None] = staticmethod(lambda: None)
    """Called in that thread when training is to end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._answers: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.request: Command | None = None
        """The newest stop, pause or drain; training is to end."""
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def wait_for_answer(self, epoch: int, seconds: float) -> None:
        """Return when the report of `epoch` is answered, `request` is set, or `seconds` are over."""
        deadline = time.monotonic() + seconds
        while self.request is None and (left := deadline - time.monotonic()) > 0:
            try:
                if self._answers.get(timeout=left).epoch >= epoch:
                    return
            except queue.Empty:
                return

    def _read(self) -> None:
        for line in self._stream:
            command = Command.model_validate_json(line)
            if command.action != "continue":
                self.request = command
                self.on_request()
            self._answers.put(command)
        # Nobody takes the result any more; a clean exit would first wait for the running batch.
        os._exit(ORPHANED)
