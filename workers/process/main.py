"""The process that trains one trial. Each trial has a new one, so that nothing of the last trial is left in it.

It is started as `python -P -c "from workers.process.main import main; main()" FD`, imports what it needs, and waits
for its job. It uses no GPU before it has a job, so that it may wait while another trial runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from data.errors import hide_contents

from ..device.main_memory import let_kernel_end_this_first
from .messages import Job
from .pipes import EventPipe, Mailbox


def main() -> None:
    """Import, wait for the job, and train."""
    # The worker decides what a signal means; a terminal or Slurm sends it to every process of the group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    let_kernel_end_this_first()
    events = EventPipe(int(sys.argv[1]))
    from .job import run_job, warm_up  # imports torch, which takes seconds: signals are ignored before it

    warm_up()
    line = sys.stdin.readline()
    if not line:
        return  # the worker ended without a job for this process
    job = Job.model_validate_json(line)
    if job.for_others:
        hide_contents()
    run_job(job, events=events, mailbox=Mailbox(sys.stdin))
    # Threads of libraries may keep a finished process alive; everything that matters has been written.
    with contextlib.suppress(OSError):  # the disk of the log may be full
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
