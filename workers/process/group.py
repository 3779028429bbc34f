"""The machines of a group, as its leader sees them: who is there, and what runs there.

The worker that leads waits for a connection of each follower, and hands them to the process of the next trial. When
that ends, the connections end with it, and so do the ranks at their other ends; then the followers come again.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from hpo.errors import AuthenticationError, SetupError
from hpo.protocol import Message
from hpo.trial import Fault

from ..device.detection import Device
from ..device.main_memory import Shortage
from ..errors import MachineError
from .channel import Channel, Line, accept, listener
from .child import Child, ProcessExited
from .messages import Event, Interrupted, Job, WorkerFault

_CODE: Final = "from workers.process.main import main_of_leader; main_of_leader()"
_GOODBYE_SECONDS: Final = 10.0
"""How long a leader that ends waits for followers that are on their way, to tell them that they may end."""
_GATHER_SECONDS: Final = 600.0
"""How long the members of a group wait for each other, however soon they end when there is no trial: one may have to
import PyTorch from a slow disk, or be started again."""
_ANSWER_SECONDS: Final = 3.0
"""How long a follower that waits has to answer: a machine that was lost does not, and the kernel sees that later."""
_MOST_HANDSHAKES: Final = 32
"""Under way at once: whoever reaches the port can begin one, and has ten seconds to show that it is a follower."""
_REFUSED_SECONDS: Final = 0.5
"""How long a leader waits after the kernel has refused it a connection, as when it has no handle left."""
_log = logging.getLogger(__name__)


def seconds_to_gather(exit_when_idle_seconds: float | None) -> float | None:
    """Return how long a member of a group waits for the others; None is for ever."""
    return None if exit_when_idle_seconds is None else max(exit_when_idle_seconds, _GATHER_SECONDS)


class Hello(Message):
    """How a follower introduces itself; all but its node and host must be those of the leader."""

    node: int
    host: str
    nodes: int
    device: str
    gpus: int
    gpu_name: str | None
    bf16: bool
    deterministic: bool
    version: str
    torch: str
    """Releases."""

    def problem_with(self, other: Hello) -> str | None:
        """Return what of `other` differs, as a sentence; None if nothing does."""
        for name in ("nodes", "device", "gpus", "gpu_name", "bf16", "deterministic", "version", "torch"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return (
                    f"the machines of a group must be alike: {name} is {theirs} on {other.host}, {ours} on {self.host}"
                )
        return None


class Begin(Message):
    """Start the ranks of a trial, and end those that run."""

    kind: Literal["begin"] = "begin"
    start: int
    """Counts the starts of one trial."""
    job: Job
    first: int
    """The first rank of this machine; it has `job.ranks` / `job.nodes`."""
    port: int
    """Where the ranks meet, at the leader."""


class Refused(Message):
    """The follower is not taken."""

    kind: Literal["refused"] = "refused"
    message: str


class Ask(Message):
    """Say that you are there: another follower of the same node rank has come."""

    kind: Literal["ask"] = "ask"


class Over(Message):
    """The leader ends; the follower may too."""

    kind: Literal["over"] = "over"


class Said(Message):
    """What a rank said."""

    kind: Literal["said"] = "said"
    start: int
    rank: int
    event: Event


class Exited(Message):
    """A rank ended."""

    kind: Literal["exited"] = "exited"
    start: int
    rank: int
    returncode: int
    shortage: Shortage | None = None
    peak_bytes: int | None = None


class Here(Message):
    """The follower waits for a trial still."""

    kind: Literal["here"] = "here"


class Leaving(Message):
    """The follower was asked to end: the trial is to be given back."""

    kind: Literal["leaving"] = "leaving"


FROM_LEADER: TypeAdapter[Begin | Refused | Ask | Over] = TypeAdapter(
    Annotated[Begin | Refused | Ask | Over, Field(discriminator="kind")]
)
FROM_FOLLOWER: TypeAdapter[Said | Exited | Here | Leaving] = TypeAdapter(
    Annotated[Said | Exited | Here | Leaving, Field(discriminator="kind")]
)
Heard = tuple[int, Event | ProcessExited | Leaving]
"""A rank, and what it said or what became of it."""


class Followers:
    """The followers of a group that wait for a trial."""

    def __init__(self, address: tuple[str, int], token: str, hello: Hello) -> None:
        """Listen.

        Raises:
            SetupError: the port cannot be used.
        """
        self._token = token
        self._hello = hello
        self._waiting: dict[int, tuple[Channel, str]] = {}
        self._lock = threading.Lock()
        self._handshakes = threading.BoundedSemaphore(_MOST_HANDSHAKES)
        self._is_over = threading.Event()
        self._said: str | None = None
        try:
            self._listener = listener(*address)
        except OSError as error:
            raise SetupError(
                f"--meet: port {address[1]} cannot be used here ({error.strerror}): choose another"
            ) from error
        threading.Thread(target=self._listen, name="followers", daemon=True).start()

    def are_there(self) -> bool:
        """Return whether each follower waits; say in the log for which ones this worker does."""
        with self._lock:
            for node in [node for node, (channel, _) in self._waiting.items() if not channel.is_open]:
                self._waiting.pop(node)[0].close()
            missing = [str(node) for node in range(1, self._hello.nodes) if node not in self._waiting]
        said = f"waiting for the followers of node rank {', '.join(missing)}" if missing else "all followers are there"
        if said != self._said:
            _log.info("%s", said)
        self._said = said
        return not missing

    def take(self) -> list[tuple[Channel, Line]]:
        """Return the connections, in the order of their nodes; they are the caller's to close."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
        return [(channel, channel.line(node, host)) for node, (channel, host) in sorted(taken.items())]

    def dismiss(self) -> None:
        """Tell all followers that they may end, those that are on their way included."""
        deadline = time.monotonic() + _GOODBYE_SECONDS
        told: set[int] = set()
        while len(told) < self._hello.nodes - 1 and time.monotonic() < deadline:
            for channel, line in self.take():
                channel.send(Over().model_dump_json())
                channel.close()
                told.add(line.node)
            time.sleep(0.05)
        self._is_over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # for the thread that waits for a connection
        self._listener.close()

    def _listen(self) -> None:
        while not self._is_over.is_set():
            self._handshakes.acquire()  # the others wait in the kernel's queue
            try:
                sock, (host, *_) = self._listener.accept()
                threading.Thread(target=self._greet, args=(sock, host), name="handshake", daemon=True).start()
            except (OSError, RuntimeError) as error:  # no handle, or no thread
                self._handshakes.release()
                if not self._is_over.wait(_REFUSED_SECONDS):
                    _log.warning("a connection could not be taken: %s", error)

    def _greet(self, sock: socket.socket, host: str) -> None:
        try:
            self._welcome(sock, host)
        finally:
            self._handshakes.release()

    def _welcome(self, sock: socket.socket, host: str) -> None:
        try:
            channel, introduction = accept(sock, self._token)
            hello = Hello.model_validate_json(introduction)
        except (AuthenticationError, OSError, ValueError) as error:
            _log.warning("a connection from %s is refused: %s", host, error)
            sock.close()
            return
        problem = self._hello.problem_with(hello)
        with self._lock:
            known = self._waiting.get(hello.node)
            if problem is None and not 0 < hello.node < self._hello.nodes:
                problem = (
                    f"there is no follower of node rank {hello.node}: they count from 1 to {self._hello.nodes - 1}"
                )
            if problem is None and known is not None and _is_there(known[0]):
                problem = f"node rank {hello.node} is taken by {known[1]}"
            if problem is None:
                if known is not None:
                    known[0].close()
                self._waiting[hello.node] = (channel, hello.host)
                return
        _log.warning("a follower on %s is refused: %s", hello.host, problem)
        channel.send(Refused(message=problem).model_dump_json())
        channel.close()


def _is_there(channel: Channel) -> bool:
    if not channel.is_open:
        return False
    channel.send(Ask().model_dump_json())
    answer = channel.receive(_ANSWER_SECONDS)
    return answer is not None and isinstance(FROM_FOLLOWER.validate_json(answer), Here)


class LeadingProcesses:
    """Provides the processes of trials of a group: each takes the followers that wait."""

    def __init__(self, followers: Followers, device: Device, folder: Path) -> None:
        self._followers = followers
        self._device = device
        self._folder = folder

    def prepare(self) -> None:
        """Do nothing: the process starts its ranks when it has a job, and loads little itself."""

    def take(self) -> Child:
        """Return a new process; it is the caller's to end.

        Raises:
            MachineError: this machine cannot start one.
        """
        taken = self._followers.take()
        try:
            return LeadingChild.with_followers(self._device, self._folder, [line for _, line in taken])
        except OSError as error:
            raise MachineError(
                f"no training process can be started ({error}); check the disk of {self._folder}"
            ) from error
        finally:
            for channel, _ in taken:
                channel.leave()

    def close(self) -> None:
        """Do nothing: none is kept ready."""


class LeadingChild(Child):
    """A training process that has the connections to the followers."""

    followers: Sequence[Line] = ()

    @classmethod
    def with_followers(cls, device: Device, folder: Path, followers: Sequence[Line]) -> LeadingChild:
        """Start one; it prints into `folder` until it has a job."""
        child = cls.start(device, folder, code=_CODE, handles=[line.handle for line in followers])
        child.followers = followers
        return child

    def assign(self, job: Job, log: Path, deliver: Callable[[Event | ProcessExited], None]) -> None:
        super().assign(job.model_copy(update={"followers": list(self.followers)}), log, deliver)


class Node:
    """Another machine of a group, as the process of a trial sees it, from its first start to its last."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._channel = Channel.of_line(line)
        self._start = 0
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._first = 0
        self._left = 0
        self._is_quiet = threading.Condition()
        self._is_excused = False
        """Whether it may be lost: it was asked to end, or has begun nothing of this trial."""
        self._is_lost = False
        threading.Thread(target=self._read, name=f"node {line.node}", daemon=True).start()

    @property
    def host(self) -> str:
        """The name of that machine."""
        return self._line.host

    @property
    def interface(self) -> str | None:
        """The network interface of this machine that leads there."""
        return self._channel.interface

    @property
    def address(self) -> str:
        """The address of this machine for that one."""
        return self._channel.address

    def begin(self, job: Job, port: int, heard: queue.SimpleQueue[Heard]) -> None:
        """Start the ranks there; what they say is put into a queue."""
        ranks = job.ranks // job.nodes
        with self._is_quiet:
            self._start += 1
            self._heard, self._first, self._left = heard, self._line.node * ranks, ranks
            if self._start == 1 and not self._channel.is_open:
                self._is_excused = True
            if self._is_lost:
                self._say_lost()
        message = Begin(start=self._start, job=job.model_copy(update={"followers": []}), first=self._first, port=port)
        self._channel.send(message.model_dump_json())

    def end(self, *, patience_seconds: float = 0.0) -> None:
        """Wait for the ranks there to exit; those that have not will when the next begin, or this process ends."""
        with self._is_quiet:
            self._is_quiet.wait_for(lambda: self._left <= 0 or self._is_lost, patience_seconds)

    def _read(self) -> None:
        try:
            for text in self._channel.received():
                message = FROM_FOLLOWER.validate_json(text)
                with self._is_quiet:
                    if isinstance(message, Leaving):
                        self._is_excused = True
                        self._heard.put((self._first, message))
                    elif not isinstance(message, Here) and message.start == self._start:
                        self._take(message)
        finally:
            with self._is_quiet:
                self._is_lost = True
                self._say_lost()
                self._is_quiet.notify_all()

    def _take(self, message: Said | Exited) -> None:
        if isinstance(message, Said):
            event = message.event
            if isinstance(event, WorkerFault):
                event = event.model_copy(update={"message": f"on {self.host}: {event.message}"})
            self._heard.put((message.rank, event))
            return
        self._left -= 1
        self._is_quiet.notify_all()
        exited = ProcessExited(returncode=message.returncode, shortage=message.shortage, peak_bytes=message.peak_bytes)
        self._heard.put((message.rank, exited))

    def _say_lost(self) -> None:
        if self._is_excused:  # its part is given up as it is
            self._heard.put((0, Interrupted(checkpoint=None)))
            return
        problem = f"the follower of node rank {self._line.node}, on {self.host}, is gone, with its ranks"
        self._heard.put((self._first, WorkerFault(fault=Fault.PROCESS, message=problem)))
