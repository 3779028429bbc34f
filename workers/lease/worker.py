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
from typing import Final, Literal
from uuid import uuid4

from hpo.errors import StaleLeaseError
from hpo.protocol import ClaimRequest, Lease, ReleaseRequest, WorkerInfo
from hpo.trial import Fault

from ..checkpoints.folder import TrialFolder, run_in, run_of
from ..device.detection import Device, check_device
from ..errors import ApiRefusedError, ApiUnavailableError, MachineError
from ..process.child import Child, StandbyProcess
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
_FAULTS_OF_DEVICES: Final = frozenset({Fault.DEVICE, Fault.ARCHITECTURE, Fault.KERNEL, Fault.HANG, Fault.PROCESS})
"""Faults after which the device is checked."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What one worker does and where it keeps things."""

    info: WorkerInfo
    device: Device
    checkpoint_dir: Path
    cache_dir: Path
    weights_roots: tuple[Path, ...] = ()
    checkpoint_roots: tuple[Path, ...] = ()
    """Further folders of checkpoints, of other workers."""
    data_roots: tuple[Path, ...] | None = None
    """Folders that data sets may be in; None for any."""
    """Folders of weights files."""
    study: str | None = None
    """Only trials of this study."""
    exit_when_idle_seconds: float | None = None
    """End after this time without a trial; None waits for ever."""
    patience: Patience = field(default_factory=Patience)
    max_trials: int | None = None
    """End after this number of trials; None is without limit."""
    tensorboard: bool = False
    """Whether trials write event files of TensorBoard."""


class Worker:
    """Runs trials one after another."""

    def __init__(
        self,
        config: WorkerConfig,
        client: ApiClient,
        *,
        standby: StandbyProcess | None = None,
        inbox: Inbox | None = None,
        check: Callable[[Device], str | None] = check_device,
        clean_up: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            standby: provides the training processes.
            check: returns what is wrong with the device, None if nothing is.
            clean_up: called before each claim; removes checkpoints that nobody needs, when it is time for that.
            clock: returns seconds.
        """
        self._config = config
        self._client = client
        self._inbox = inbox or Inbox()
        self._standby = standby or StandbyProcess(config.device, config.checkpoint_dir)
        self._check = check
        self._clean_up = clean_up
        self._clock = clock
        self._child: Child | None = None
        self._quarantine: str | None = None
        self._stopping = False

    def install_signal_handlers(self) -> None:
        """Drain at the first SIGTERM or SIGINT, and end at once at the second."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Drain; when called again, kill the training process and end this one with status 128 + `number`."""
        if self._stopping:
            if self._child is not None:
                os.kill(self._child.pid, signal.SIGKILL)
            os._exit(128 + number)
        self._stopping = True
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
        while not self._stopping:
            self._clean_up()
            request = ClaimRequest(worker=self._config.info, lease_id=lease_id, study=self._config.study)
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
            clock=self._clock,
        )
        if not last:
            self._standby.prepare()
        run.run()
        self._child = None
        if run.fatal is not None:
            raise run.fatal
        if run.fault in _FAULTS_OF_DEVICES and not self._stopping:
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
            weights=lease.weights,
            device=device.kind,
            threads=device.threads,
            bf16=device.bf16,
            deterministic=device.deterministic,
            pulse_seconds=self._config.patience.pulse_seconds,
            memory_share=device.memory_share,
            tensorboard=self._config.tensorboard,
            checkpoints=lease.checkpoints,
            measures=lease.measures,
        )
