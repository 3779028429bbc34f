"""A trial that several processes train together: start them, watch them, and speak with the worker for all of them.

The process that has the worker's pipes trains nothing itself. It starts one process for each device (a rank), passes
commands on to the first one and that one's events on to the worker. What ends one rank ends all: the others wait in
the middle of an update that will never be whole. Its checkpoint is that of the first rank.

    a rank fails, or finds a fault   -> all are ended, and the worker is told what that rank said
    a rank is killed or exits        -> all are ended, and the worker is told which one it was
    memory runs out on a rank        -> all are ended, and begin again at the newest checkpoint by a smaller plan
    a rank is silent or stands still -> the worker hears nothing any more, and its watchdog ends this process
    this process ends                -> the kernel ends the ranks

Of a group of machines, this process is the leader's: it has a connection to each follower, which starts and watches the
ranks of its machine in the same way and passes on what they say (`follower`).

    a follower is lost               -> all are ended, and the worker is told which one it was
    a follower is asked to end       -> all write a checkpoint, as when the worker is
    this process ends                -> its connections end, and the followers end their ranks
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Final, Self

from hpo.installation import python_command
from hpo.trial import FailureKind, Fault

from ..device.main_memory import Shortage
from ..training.meeting import Meeting
from .channel import is_loopback, listener
from .child import Child, ProcessExited
from .group import Heard, Leaving, Node
from .messages import (
    Alive,
    Command,
    Event,
    Failed,
    Finished,
    Interrupted,
    Job,
    LastEvent,
    Restart,
    WorkerFault,
)
from .pipes import LOST_OTHERS, ORPHANED, EventPipe

_CODE: Final = "from workers.process.main import main_of_rank; main_of_rank()"
CAUSE_SECONDS: Final = 10.0
"""How long the cause is waited for, when a rank has lost another one that has not said why."""
_LOST: Final = (LOST_OTHERS, -signal.SIGABRT)
"""Exit statuses of a rank that has lost another one: NCCL aborts its process."""
_EXIT_SECONDS: Final = 5.0
"""The time that ranks have to exit by themselves after the last event."""


def run_on_ranks(job: Job, *, events: EventPipe, commands: IO[str]) -> None:
    """Train on `job.ranks` processes, and send exactly one last event."""
    forward = _Commands(commands)
    nodes = [Node(line) for line in job.followers]
    try:
        if len(nodes) + 1 < job.nodes:  # a follower has gone while the trial was claimed, which is nobody's fault
            last: LastEvent = Interrupted(checkpoint=None)
        else:
            last = _result(job, events, forward, nodes)
    except OSError as error:
        problem = f"the {job.ranks} processes of the trial cannot be started ({error})"
        last = WorkerFault(fault=Fault.SYSTEM, message=problem)
    events.send(last)


def _result(job: Job, events: EventPipe, forward: _Commands, nodes: Sequence[Node]) -> LastEvent:
    while True:
        group = _Group(job, events, nodes)
        try:
            forward.to(group)
            last = group.watched()
        except BaseException:  # whatever ends this, no rank is left behind
            group.end()
            raise
        group.end(patience_seconds=_EXIT_SECONDS if isinstance(last, Finished | Interrupted) else 0.0)
        if not isinstance(last, Restart):
            return last
        job = job.model_copy(update={"resume": True, "smaller_plan": last.plan})


class Rank(Child):
    """One of the ranks: it prints into the log of the attempt, as this process does."""

    @classmethod
    def begin(
        cls,
        number: int,
        job: Job,
        meeting: Sequence[str],
        deliver: Callable[[Event | ProcessExited], None],
        *,
        handles: Sequence[int] = (),
        environment: Mapping[str, str],
    ) -> Self:
        """Start the process and give it its job; a thread calls `deliver` with what it says, and with its end.

        Args:
            number: the rank, over all machines.
            meeting: where the ranks meet, as arguments; `handles` are what it needs for that.
            environment: of the training processes of this machine.
        """
        read, write = os.pipe()
        try:
            process = subprocess.Popen(
                python_command(_CODE, str(write), str(number), *meeting),
                stdin=subprocess.PIPE,
                pass_fds=(write, *handles),
                env=_of_rank(environment, number % (job.ranks // job.nodes)),
                start_new_session=True,  # Ctrl-C in a terminal is for the worker, or the follower, alone
                text=True,
                encoding="utf-8",
            )
        finally:
            os.close(write)
        rank = cls(process, os.fdopen(read, encoding="utf-8"), Path(os.devnull))
        rank._begin(job, deliver)
        return rank


class _Group:
    """The ranks of a trial, from their start to the first thing that ends them."""

    def __init__(self, job: Job, events: EventPipe, nodes: Sequence[Node]) -> None:
        self._job = job
        self._events = events
        self._nodes = nodes
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._pulses: dict[int, Alive] = {}
        self._ranks: list[Rank] = []
        try:
            if nodes:
                self._begin_on_all(nodes)
            else:
                self._begin_alone()
        except OSError:
            self.end()
            raise

    def _begin_alone(self) -> None:
        meeting = os.memfd_create("hpo-ranks")  # it is gone with the ranks, also where all of this is killed
        try:
            self._begin(Meeting(path=f"/proc/self/fd/{meeting}"), meeting)
        finally:
            os.close(meeting)

    def _begin_on_all(self, nodes: Sequence[Node]) -> None:
        interface, address = nodes[0].interface, nodes[0].address
        host = address if is_loopback(address) else "127.0.0.1"
        with listener(address, 0) as meeting:
            port = meeting.getsockname()[1]
            for node in nodes:
                node.begin(self._job, port, self._heard)
            here = Meeting(host=host, port=port, handle=meeting.fileno(), interface=interface or "")
            self._begin(here, meeting.fileno())

    def _begin(self, meeting: Meeting, handle: int) -> None:
        """Start the ranks of this machine, which need `handle` to meet."""
        job = self._job.model_copy(update={"followers": []})
        for number in range(job.ranks // job.nodes):
            deliver = partial(self._hear, number)
            self._ranks.append(
                Rank.begin(number, job, meeting.arguments(), deliver, handles=[handle], environment=os.environ)
            )

    def _hear(self, number: int, event: Event | ProcessExited) -> None:
        self._heard.put((number, event))

    def command(self, command: Command) -> None:
        """Pass a command on: the first rank decides for all when to obey it, and the others leave their compilers."""
        for rank in self._ranks:
            rank.send(command)

    def watched(self) -> LastEvent | Restart:
        """Return what ends the training; until then, pass on what the first rank says."""
        cause_by: float | None = None
        lost: LastEvent | None = None
        while True:
            left = None if cause_by is None else max(0.0, cause_by - time.monotonic())
            try:
                number, event = self._heard.get(timeout=left)
            except queue.Empty:
                assert lost is not None  # noqa: S101 - only then is there a limit
                return lost
            if isinstance(event, ProcessExited) and event.returncode in _LOST:
                cause_by = cause_by or time.monotonic() + CAUSE_SECONDS
                lost = lost or self._exited(number, event)
            elif (last := self._end_of(number, event)) is not None:
                return last

    def _end_of(self, number: int, event: Event | ProcessExited | Leaving) -> LastEvent | Restart | None:
        """Return what ends the training if this event does; pass it on if it does not."""
        match event:
            case Failed() | WorkerFault() | Restart():
                return event
            case ProcessExited():
                # After its last event, which the first rank sends for all, a rank exits with 0.
                return None if event.returncode == 0 else self._exited(number, event)
            case Alive():
                self._on_pulse(number, event)
            case Leaving():
                self.command(Command(action="drain"))
            case Finished() | Interrupted():
                return event if number == 0 else None
            case _ if number == 0:
                self._events.send(event)
        return None

    def _on_pulse(self, number: int, alive: Alive) -> None:
        """Tell the worker that all ranks live, once each of them has said so; how far they are, the first one says."""
        self._pulses[number] = alive
        if len(self._pulses) == self._job.ranks:
            self._events.send(self._pulses[0])
            self._pulses.clear()

    def _exited(self, number: int, exited: ProcessExited) -> LastEvent:
        node = number // (self._job.ranks // self._job.nodes)
        who = f"rank {number} of {self._job.ranks}" + (f", on {self._nodes[node - 1].host}" if node else "")
        message = f"{who} lost another one, which did not say why" if exited.returncode in _LOST else f"{who}: {exited}"
        if exited.shortage is Shortage.ITSELF and self._job.device == "cpu":
            return Failed(failure_kind=FailureKind.OOM, message=message, peak_memory_bytes=exited.peak_bytes)
        return WorkerFault(fault=exited.fault, message=message)

    def end(self, *, patience_seconds: float = 0.0) -> None:
        """End all ranks; they have `patience_seconds` to exit by themselves."""
        deadline = time.monotonic() + patience_seconds
        members: list[Rank | Node] = [*self._ranks, *self._nodes]
        for one in members:
            one.end(patience_seconds=max(0.0, deadline - time.monotonic()))


class _Commands:
    """Passes commands of the worker on to the ranks that run; when the worker has ended, this process does too."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._group: _Group | None = None
        self._request: Command | None = None
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def to(self, group: _Group) -> None:
        """Pass commands on to `group` from now on, and what was asked before it began."""
        with self._lock:
            self._group = group
            if self._request is not None:
                group.command(self._request)

    def _read(self) -> None:
        for line in self._stream:
            command = Command.model_validate_json(line)
            with self._lock:
                if command.action != "continue":
                    self._request = command
                if self._group is not None:
                    self._group.command(command)
        os._exit(ORPHANED)


def _of_rank(environment: Mapping[str, str], place: int) -> dict[str, str]:
    """Return the environment of a rank: its GPU, of those of its machine, is the only one that it sees."""
    environment = dict(environment)
    gpus = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[place]
    return environment
