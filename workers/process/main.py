"""The process that trains one trial. Each trial has a new one, so that nothing of the last trial is left in it.

It is started as `python -P -c "from workers.process.main import main; main()" FD`, imports what it needs, and waits
for its job. It uses no GPU before it has a job, so that it may wait while another trial runs. A trial of several ranks
trains in processes that this one starts (`ranks`), each as `main_of_rank()`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

from data.errors import hide_contents

from ..device.main_memory import let_kernel_end_this_first
from .messages import Job
from .orphans import end_with_parent
from .pipes import EventPipe, Mailbox


def main() -> None:
    """Import, wait for the job, and train."""
    events = _begin()
    job = _wait_for_job()
    if job is None:
        return  # the worker ended without a job for this process
    if job.ranks > 1:
        from .ranks import run_on_ranks

        run_on_ranks(job, events=events, commands=sys.stdin)
    else:
        from .job import run_job

        run_job(job, events=events, mailbox=Mailbox(sys.stdin))
    _end()


def main_of_leader() -> None:
    """Start the ranks of a trial on this machine and on the followers of its group, and train nothing."""
    events = _begin(trains=False)
    job = _wait_for_job()
    if job is None:
        return
    from .ranks import run_on_ranks

    run_on_ranks(job, events=events, commands=sys.stdin)
    _end()


def main_of_rank() -> None:
    """Be one of the ranks of a trial; the arguments are the pipe for events, the rank, and where the ranks meet."""
    end_with_parent()
    events = _begin()
    job = _wait_for_job()
    if job is None:
        return
    from ..training.meeting import Meeting
    from .job import run_rank

    meeting = Meeting.of_arguments(sys.argv[3:])
    run_rank(job, rank=int(sys.argv[2]), meeting=meeting, events=events, mailbox=Mailbox(sys.stdin))
    _end()


def _begin(*, trains: bool = True) -> EventPipe:
    # The worker decides what a signal means; a terminal or Slurm sends it to every process of the group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    let_kernel_end_this_first()
    events = EventPipe(int(sys.argv[1]))
    if trains:
        from .job import warm_up  # imports torch, which takes seconds: signals are ignored before it

        warm_up()
    return events


def _wait_for_job() -> Job | None:
    line = sys.stdin.readline()
    if not line:
        return None
    job = Job.model_validate_json(line)
    if job.for_others:
        hide_contents()
    return job


def _end() -> NoReturn:
    # Threads of libraries may keep a finished process alive; everything that matters has been written.
    with contextlib.suppress(OSError):  # the disk of the log may be full
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
