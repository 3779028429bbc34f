"""The process that trains one trial: started afresh for each, so that nothing of the last one is left in it.

It is started as `python -P -c "from workers.trial_process import main; main()" FD`, imports what it needs, and waits
for its job. It touches no GPU before it has one, so that it may stand by while another trial runs.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import IO

from .messages import Command, Event, Job

ORPHANED = 3
"""Exit status of a child whose worker is gone."""


class EventPipe:
    """Where events go. Writing to a worker that is gone ends the process."""

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
    """The commands that came in; a stop, pause or drain stays until it is obeyed."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._answers: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.request: Command | None = None
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def wait_for_answer(self, epoch: int, seconds: float) -> None:
        """Return when the report of `epoch` was answered, something else was asked for, or `seconds` are over."""
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
            if command.action != "carry_on":
                self.request = command
            self._answers.put(command)
        # Nobody wants the result any more; a clean exit would first wait for the running batch.
        os._exit(ORPHANED)


def main() -> None:
    """Run the child: import, wait for the job, train."""
    # The worker decides what a signal means; a terminal or Slurm sends it to every process of the group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    events = EventPipe(int(sys.argv[1]))
    from .job import run_job, warm_up  # brings torch, which takes seconds: signals come first

    warm_up()
    line = sys.stdin.readline()
    if not line:
        return  # the worker had nothing more to do
    run_job(Job.model_validate_json(line), events=events, mailbox=Mailbox(sys.stdin))
    # Threads of libraries may keep a finished process alive; everything that matters is written.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
