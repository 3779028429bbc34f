"""The worker: claim a trial, run it, claim the next one, until a signal or a limit ends it."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, Literal, Protocol
from uuid import uuid4

from hpo import traces
from hpo.errors import StaleLeaseError
from hpo.installation import REPEATED_SECONDS
from hpo.protocol import ClaimRequest, Lease, ReleaseRequest, WorkerInfo
from hpo.trial import CUSTOM, IMAGE, VIDEO, Fault

from ..checkpoints.folder import TrialFolder, run_in, run_of
from ..device.detection import FAULTS_OF_DEVICES, Device, check_device
from ..errors import ApiRefusedError, ApiUnavailableError, MachineError
from ..functions.entry import Entry
from ..process.child import Child, StandbyProcess
from ..process.functions import FunctionProcesses
from ..process.group import seconds_to_gather
from ..process.messages import Job
from .attempt_log import AttemptLog
from .backoff import Backoff, jittered
from .client import ApiClient
from .inbox import Inbox, Shutdown
from .reporter import Reporter
from .trial_run import TrialRun
from .watchdog import Patience

HELD_SECONDS: Final = 2.0
"""How long the API may hold a claim while there is no trial; a signal is answered after it."""
LOOK_SECONDS: Final = 0.5
"""How often a leader looks whether its followers are there."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What one worker does and where it keeps things."""

    info: WorkerInfo
    device: Device
    checkpoint_dir: Path
    cache_dir: Path
    weights_roots: tuple[Path, ...] = ()
    """Folders of weights files."""
    checkpoint_roots: tuple[Path, ...] = ()
    """Further folders of checkpoints, of other workers."""
    data_roots: tuple[Path, ...] | None = None
    """Folders that data sets may be in; None for any."""
    remote_roots: tuple[str, ...] = ()
    """Addresses that data sets may be at."""
    study: str | None = None
    """Only trials of this study."""
    exit_when_idle_seconds: float | None = None
    """End after this time without a trial; None waits for ever."""
    patience: Patience = field(default_factory=Patience)
    max_trials: int | None = None
    """End after this number of trials; None is without limit."""
    entry: Entry | None = None
    """A person's own function: the worker runs it, and takes trials of nothing else."""
    tensorboard: bool = False
    """Whether trials write event files of TensorBoard."""
    readers: int | None = None
    """Threads that read clips for a GPU; None for the default of the loader."""
    compile: Literal["blocks", "graphs"] | None = None
    """Whether updates are computed by blocks that are compiled, and by CUDA graphs of these."""


class Processes(Protocol):
    """Provides the processes that trials run in."""

    def prepare(self) -> None: ...
    def take(self) -> Child: ...
    def close(self) -> None: ...


def _processes(config: WorkerConfig) -> Processes:
    if config.entry is None:
        return StandbyProcess(config.device, config.checkpoint_dir)
    return FunctionProcesses(config.entry, config.device, config.checkpoint_dir)


class Worker:
    """Runs trials one after another."""

    def __init__(
        self,
        config: WorkerConfig,
        client: ApiClient,
        *,
        standby: Processes | None = None,
        inbox: Inbox | None = None,
        may_claim: Callable[[], bool] = lambda: True,
        check: Callable[[Device], str | None] = check_device,
        clean_up: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            standby: provides the training processes.
            may_claim: asked before each claim: whether all that a trial needs is there, as the followers of a group.
            check: returns what is wrong with the device, None if nothing is.
            clean_up: called before each claim; removes checkpoints that nobody needs, when it is time for that.
            clock: returns seconds.
        """
        self._config = config
        self._client = client
        self._inbox = inbox or Inbox()
        self._standby: Processes = standby or _processes(config)
        self._may_claim = may_claim
        self._check = check
        self._clean_up = clean_up
        self._clock = clock
        self._child: Child | None = None
        self._quarantine: str | None = None
        self._stopping = False
        self._stopping_since = 0.0

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has asked it to end."""
        return self._stopping

    def install_signal_handlers(self) -> None:
        """Drain at the first SIGTERM or SIGINT, and end at once at the second."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Drain; when called again, kill the training process and end this one with status 128 + `number`.

        SIGTERM that comes again within `REPEATED_SECONDS` is the same one, sent by somebody else.
        """
        if self._stopping:
            if number == signal.SIGTERM and self._clock() - self._stopping_since < REPEATED_SECONDS:
                return
            if self._child is not None:
                os.kill(self._child.pid, signal.SIGKILL)
            os._exit(128 + number)
        self._stopping, self._stopping_since = True, self._clock()
        self._inbox.put(Shutdown())

    def run(self) -> None:
        """Work until there was no trial for too long, `max_trials` are done, or a signal came.

        Raises:
            AuthenticationError, PermissionDeniedError, ApiRefusedError, SetupError: the API refuses this worker.
            MachineError: this machine cannot start a training process; or a trial was given back because the GPU
                failed, and the check of the GPU failed too.
        """
        done = 0
        try:
            while not self._stopping and done != self._config.max_trials:
                self._standby.prepare()  # imports PyTorch while the claim is under way
                lease = self._claim()
                if lease is None:
                    break
                done += 1
                self._run_trial(lease, last=done == self._config.max_trials)
        finally:
            self._standby.close()

    def _claim(self) -> Lease | None:
        """Wait for a trial and return its lease; None when it is time to end."""
        backoff = Backoff()
        since = self._clock()
        lease_id = uuid4()
        while (waited := self._wait_for_others()) is not None:
            since += waited  # who may not claim does not know whether there is a trial
            self._clean_up()
            request = ClaimRequest(
                worker=self._config.info,
                lease_id=lease_id,
                study=self._config.study,
                task_kinds=[VIDEO, IMAGE] if self._config.entry is None else [CUSTOM],
            )
            try:
                reply = self._client.claim(request, wait_seconds=self._seconds_to_wait(since))
            except ApiUnavailableError as error:
                # The same lease id again: if only the reply was lost, the API answers with the trial claimed before.
                if backoff.failures == 0:
                    _log.warning("%s; trying again", error)
                wait_seconds = backoff.next_seconds(error.retry_after)
            except StaleLeaseError:
                # The reply was lost, and the trial has been taken back since then.
                lease_id = uuid4()
                wait_seconds = 0.0
            else:
                if backoff.failures:
                    _log.info("the API answers again")
                    backoff.reset()
                if isinstance(reply, Lease):
                    self._quarantine = None
                    return self._unless_stopping(reply)
                self._note_quarantine(reply.quarantine)
                # Still the same lease id: what a late copy of this claim takes is then the next answer.
                wait_seconds = jittered(reply.retry_after)
            if self._is_idle_too_long(since):
                _log.info("no trial for %.0f s; ending", self._clock() - since)
                return None
            self._wait(wait_seconds)
        return None

    def _wait_for_others(self) -> float | None:
        """Wait until this worker may claim; return for how many seconds, None when it is time to end instead."""
        since = self._clock()
        while not self._stopping:
            if self._may_claim():
                return self._clock() - since
            limit = seconds_to_gather(self._config.exit_when_idle_seconds)
            if limit is not None and (waited := self._clock() - since) >= limit:
                _log.warning("the group is not complete after %.0f s; ending", waited)
                return None
            self._wait(LOOK_SECONDS)
        return None

    def _note_quarantine(self, reason: str | None) -> None:
        """Log a quarantine, and its end, once."""
        if reason == self._quarantine:
            return
        self._quarantine = reason
        if reason is None:
            _log.info("this worker may have trials again")
        else:
            name = self._config.info.name
            _log.warning("the API gives this worker no trial: %s; `hpo workers release %s` ends that", reason, name)

    def _seconds_to_wait(self, since: float) -> float:
        """Return how long the API may hold a claim: not beyond the time that this worker waits for a trial at all."""
        limit = self._config.exit_when_idle_seconds
        return HELD_SECONDS if limit is None else min(HELD_SECONDS, max(limit - (self._clock() - since), 0.0))

    def _is_idle_too_long(self, since: float) -> bool:
        limit = self._config.exit_when_idle_seconds
        return limit is not None and self._clock() - since >= limit

    def _unless_stopping(self, lease: Lease) -> Lease | None:
        """Return the lease; if a signal arrived during the claim, release the trial and return None."""
        if not self._stopping:
            return lease
        self._hand_back(lease, "drained")
        return None

    def _hand_back(
        self,
        lease: Lease,
        reason: Literal["drained", "crashed"],
        *,
        fault: Fault | None = None,
        message: str | None = None,
    ) -> None:
        """Give back a trial that has not been begun."""
        request = ReleaseRequest(
            attempt=lease.attempt,
            lease_id=lease.lease_id,
            reason=reason,
            checkpoint=lease.checkpoint,
            fault=fault,
            message=message,
        )
        try:
            self._client.release(lease.trial_id, request)
        except (ApiUnavailableError, ApiRefusedError) as error:
            _log.warning("%s; the lease of trial %d will expire", error, lease.number)
        except StaleLeaseError:
            _log.info("trial %d is not this worker's any more", lease.number)

    def _wait(self, seconds: float) -> None:
        """Wait, but not beyond a signal."""
        deadline = self._clock() + seconds
        while not self._stopping and (left := deadline - self._clock()) > 0:
            self._inbox.get(lease_id=None, timeout_seconds=left)  # late messages about the last trial are dropped

    def _run_trial(self, lease: Lease, *, last: bool) -> None:
        folder = self._folder(lease)
        try:
            self._child = self._standby.take()
        except MachineError as error:
            self._hand_back(lease, "crashed", fault=Fault.SYSTEM, message=str(error))
            raise
        attempt = traces.begin("attempt", self._client.part_of, worker=self._config.info.name, attempt=lease.attempt)
        if attempt is not None:
            self._client.part_of = attempt.traceparent
        run = TrialRun(
            lease,
            job=self._job(lease, folder),
            child=self._child,
            folder=folder,
            reporter=Reporter(
                self._client, lease, partial(self._inbox.put, lease_id=lease.lease_id), log=AttemptLog(folder.log)
            ),
            inbox=self._inbox,
            patience=self._config.patience,
            part_of=self._client.part_of,
            clock=self._clock,
        )
        if not last:
            self._standby.prepare()
        run.run()
        if attempt is not None:
            attempt.end(epochs=run.epoch, fault=run.fault)
        self._child = None
        if run.fatal is not None:
            raise run.fatal
        if run.fault in FAULTS_OF_DEVICES and not self._stopping:
            self._require_device()

    def _require_device(self) -> None:
        """Check the device, after a trial failed in a way that its device may have caused."""
        device = self._config.device
        _log.info("checking %s", device.label)
        if (problem := self._check(device)) is not None:
            raise MachineError(
                f"{problem}; the trial was given back to be trained elsewhere, and this worker ends: repair "
                f"{device.label}, then start it again"
            )
        _log.info("%s computes correctly", device.label)

    def _folder(self, lease: Lease) -> TrialFolder:
        """Return the folder of the trial; an API of an earlier release names the study by its number alone."""
        run = None if lease.checkpoint is None else run_in(Path(lease.checkpoint).name)
        if lease.study_uuid is not None:
            run = run_of(lease.study_uuid)
        return TrialFolder.of(
            self._config.checkpoint_dir,
            study=lease.study_uuid or lease.study_id,
            trial_id=lease.trial_id,
            attempt=lease.attempt,
            run=run_of(lease.lease_id) if run is None else run,
        )

    def _job(self, lease: Lease, folder: TrialFolder) -> Job:
        device = self._config.device
        return Job(
            config=lease.config,
            task=lease.task,
            study=lease.study,
            number=lease.number,
            seed_is_searched="seed" in lease.params,
            folder=folder.path,
            attempt=lease.attempt,
            run=folder.run,
            # Files from before the first attempt belong to a trial of an earlier database with the same ids.
            resume=lease.attempt > 1,
            checkpoint=lease.checkpoint,
            epochs_reported=lease.epochs_done,
            cache_dir=self._config.cache_dir,
            weights_roots=list(self._config.weights_roots),
            checkpoint_roots=[self._config.checkpoint_dir, *self._config.checkpoint_roots],
            for_others=True,
            data_roots=None if self._config.data_roots is None else list(self._config.data_roots),
            remote_roots=list(self._config.remote_roots),
            weights=lease.weights,
            device=device.kind,
            threads=device.threads,
            ranks=1 if lease.resources is None else lease.resources.gpus * lease.resources.nodes,
            nodes=1 if lease.resources is None else lease.resources.nodes,
            bf16=device.bf16,
            fp16=device.fp16,
            deterministic=device.deterministic,
            pulse_seconds=self._config.patience.pulse_seconds,
            memory_share=device.memory_share,
            tensorboard=self._config.tensorboard,
            readers=self._config.readers,
            compile=self._config.compile,
            checkpoints=lease.checkpoints,
            measures=lease.measures,
        )
