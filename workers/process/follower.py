"""A follower of a group of machines: it starts the ranks of its machine when the leader says so, and ends them with it.

It speaks with the leader alone, never with the API. What it has of its own are its devices, and where data sets,
caches and weights are on its machine.

    the connection ends            -> the ranks are ended, and the follower connects again
    a signal comes                 -> the leader is told, which has a checkpoint written and gives the trial back
    this process ends              -> the kernel ends the ranks, and the leader sees the connection end
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

from hpo.errors import SetupError
from hpo.installation import REPEATED_SECONDS
from hpo.trial import Fault

from ..device.detection import FAULTS_OF_DEVICES, Device, check_device
from ..errors import MachineError
from ..training.meeting import Meeting
from .channel import Channel, connect
from .child import ProcessExited
from .group import FROM_LEADER, Ask, Begin, Exited, Hello, Here, Leaving, Over, Refused, Said, seconds_to_gather
from .messages import Event, WorkerFault
from .pipes import LOST_OTHERS
from .ranks import Rank

DRAIN_SECONDS: Final = 25.0
"""The time that the leader has for a checkpoint; less than the 30 s that most schedulers leave after SIGTERM."""
_RETRY_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerConfig:
    """What one follower is."""

    hello: Hello
    address: tuple[str, int]
    """Of the leader."""
    device: Device
    own: Mapping[str, Any]
    """Fields of a job that are those of this machine: where its data sets, caches and weights are."""
    exit_when_idle_seconds: float | None = None
    """End after so long without a leader, or the longer time that a group may take to gather; None waits for ever."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """The connection is over."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A signal asks this process to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What a rank of this machine said, or what became of it."""

    channel: Channel
    """Of the leader that had the rank started."""
    start: int
    rank: int
    event: Event | ProcessExited


_Item = Begin | Refused | Over | _Ended | _Asked | _Heard


class Follower:
    """Follows a leader, through one trial after another."""

    def __init__(
        self, config: FollowerConfig, token: str, *, check: Callable[[Device], str | None] = check_device
    ) -> None:
        """Prepare; `check` returns what is wrong with the device, None if nothing is."""
        self._config = config
        self._token = token
        self._check = check
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._ranks: list[Rank] = []
        self._start = 0
        self._is_suspect = False
        """Whether a rank ended in a way that its device may have caused."""
        self._asked_at: float | None = None
        self._leave_by: float | None = None
        """When this process ends although the leader has not let it go."""

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has asked it to end."""
        return self._asked_at is not None

    def install_signal_handlers(self) -> None:
        """Have the trial given back at the first SIGTERM or SIGINT, and end at once at the second."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run(self) -> None:
        """Follow until the leader has ended, a signal came, or there was no leader for too long.

        The ranks end with the thread that calls this.

        Raises:
            AuthenticationError: the leader has another token.
            SetupError: it does not take this follower.
            MachineError: a rank ended here, and the check of the device failed.
        """
        while (channel := self._connected()) is not None:
            threading.Thread(target=self._read, args=(channel,), name="leader", daemon=True).start()
            try:
                is_over = self._follow(channel)
            finally:
                self._end_ranks()
                channel.close()
            if is_over:
                return
            self._require_device()

    def _connected(self) -> Channel | None:
        """Return a connection to the leader; None when it is time to end."""
        since, said = time.monotonic(), False
        limit = seconds_to_gather(self._config.exit_when_idle_seconds)
        while True:
            try:
                channel = connect(self._config.address, self._token, self._config.hello.model_dump_json())
            except OSError as error:
                if not said:
                    _log.info("waiting for the leader at %s:%d (%s)", *self._config.address, error)
                said = True
            else:
                _log.info("following %s:%d", *self._config.address)
                return channel
            if limit is not None and time.monotonic() - since >= limit:
                _log.info("no leader for %.0f s; ending", limit)
                return None
            if self._is_asked_within(_RETRY_SECONDS):
                return None

    def _is_asked_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if isinstance(self._inbox.get(timeout=left), _Asked):  # all else is of an earlier connection
                    return True
            except queue.Empty:
                break
        return False

    def _follow(self, channel: Channel) -> bool:
        """Do what the leader says until the connection ends; return whether this process is to end."""
        while True:
            left = None if self._leave_by is None else max(0.0, self._leave_by - time.monotonic())
            try:
                item = self._inbox.get(timeout=left)
            except queue.Empty:
                _log.warning("the leader wrote no checkpoint in time")
                return True
            match item:
                case Begin():
                    self._begin(item, channel)
                case _Heard():
                    self._tell(item, channel)
                case _Asked():
                    channel.send(Leaving().model_dump_json())  # a trial may be on its way here
                    if not self._ranks:
                        return True
                    _log.info("asked to end; the leader gives the trial back")
                    self._leave_by = time.monotonic() + DRAIN_SECONDS
                case Refused():
                    raise SetupError(f"the leader does not take this follower: {item.message}")
                case Over():
                    _log.info("the leader has ended")
                    return True
                case _Ended():
                    return self._leave_by is not None

    def _begin(self, begin: Begin, channel: Channel) -> None:
        self._end_ranks()
        self._start = begin.start
        job = begin.job.model_copy(update=dict(self._config.own))
        _log.info(
            "ranks %d to %d of trial %d of %s", begin.first, begin.first + self._here(begin) - 1, job.number, job.study
        )
        interface = channel.interface
        meeting = Meeting(host=self._config.address[0], port=begin.port, interface=interface or "").arguments()
        environment = self._config.device.environment()
        try:
            for number in range(begin.first, begin.first + self._here(begin)):
                deliver = partial(self._hear, channel, begin.start, number)
                self._ranks.append(Rank.begin(number, job, meeting, deliver, environment=environment))
        except OSError as error:
            problem = f"the ranks cannot be started ({error})"
            fault = WorkerFault(fault=Fault.SYSTEM, message=problem)
            channel.send(Said(start=begin.start, rank=begin.first, event=fault).model_dump_json())

    @staticmethod
    def _here(begin: Begin) -> int:
        return begin.job.ranks // begin.job.nodes

    def _hear(self, channel: Channel, start: int, rank: int, event: Event | ProcessExited) -> None:
        self._inbox.put(_Heard(channel=channel, start=start, rank=rank, event=event))

    def _tell(self, heard: _Heard, channel: Channel) -> None:
        if heard.channel is not channel or heard.start != self._start:
            return
        event = heard.event
        if isinstance(event, ProcessExited):
            self._is_suspect |= event.returncode not in (0, LOST_OTHERS)
            message: Said | Exited = Exited(
                start=heard.start,
                rank=heard.rank,
                returncode=event.returncode,
                shortage=event.shortage,
                peak_bytes=event.peak_bytes,
            )
        else:
            self._is_suspect |= isinstance(event, WorkerFault) and event.fault in FAULTS_OF_DEVICES
            message = Said(start=heard.start, rank=heard.rank, event=event)
        channel.send(message.model_dump_json())

    def _end_ranks(self) -> None:
        self._start = 0  # what those say from now on is of no interest
        for rank in self._ranks:
            rank.end()
        self._ranks.clear()

    def _require_device(self) -> None:
        device = self._config.device
        if self._is_suspect and (problem := self._check(device)) is not None:
            raise MachineError(f"{problem}; this follower ends: repair {device.label}, then start it again")
        self._is_suspect = False

    def _read(self, channel: Channel) -> None:
        try:
            for text in channel.received():
                message = FROM_LEADER.validate_json(text)
                if isinstance(message, Ask):
                    channel.send(Here().model_dump_json())
                else:
                    self._inbox.put(message)
        finally:
            self._inbox.put(_Ended())

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is not None:
            if number == signal.SIGTERM and now - self._asked_at < REPEATED_SECONDS:
                return  # the same one, sent by somebody else
            os._exit(128 + number)
        self._asked_at = now
        self._inbox.put(_Asked())
