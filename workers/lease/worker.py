"""The worker: claim a trial, run it, claim the next one, until a signal or a limit ends it."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from uuid import uuid4

from hpo.protocol import ClaimRequest, Lease, ReleaseRequest, WorkerInfo

from ..checkpoints.folder import TrialFolder
from ..device.detection import Device
from ..errors import ApiUnavailableError
from ..process.child import Child, StandbyProcess
from ..process.messages import Job
from .backoff import Backoff, jittered
from .client import ApiClient
from .inbox import Inbox, Shutdown
from .reporter import Reporter
from .trial_run import TrialRun

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What one worker does and where it keeps things."""

    info: WorkerInfo
    device: Device
    checkpoint_dir: Path
    cache_dir: Path
    study: str | None = None
    """Only trials of this study."""
    exit_when_idle_seconds: float | None = None
    """End after this time without a trial; None waits for ever."""
    max_trials: int | None = None
    """End after this number of trials; None is without limit."""


class Worker:
    """Runs trials one after another."""

    def __init__(
        self,
        config: WorkerConfig,
        client: ApiClient,
        *,
        standby: StandbyProcess | None = None,
        inbox: Inbox | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare. `standby` provides the training processes, and `clock` returns seconds."""
        self._config = config
        self._client = client
        self._inbox = inbox or Inbox()
        self._standby = standby or StandbyProcess(config.device, config.checkpoint_dir)
        self._clock = clock
        self._child: Child | None = None
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
            request = ClaimRequest(worker=self._config.info, lease_id=lease_id, study=self._config.study)
            try:
                reply = self._client.claim(request)
            except ApiUnavailableError as error:
                # The same lease id again: if only the reply was lost, the API answers with the trial claimed before.
                if backoff.failures == 0:
                    _log.warning("%s; trying again", error)
                wait_seconds = backoff.next_seconds(error.retry_after)
            else:
                if backoff.failures:
                    _log.info("the API answers again")
                    backoff.reset()
                if isinstance(reply, Lease):
                    return self._unless_stopping(reply)
                lease_id = uuid4()
                wait_seconds = jittered(reply.retry_after)
            if self._is_idle_too_long(since):
                _log.info("no trial for %.0f s; ending", self._clock() - since)
                return None
            self._wait(wait_seconds)
        return None

    def _is_idle_too_long(self, since: float) -> bool:
        limit = self._config.exit_when_idle_seconds
        return limit is not None and self._clock() - since >= limit

    def _unless_stopping(self, lease: Lease) -> Lease | None:
        """Return the lease; if a signal arrived during the claim, release the trial and return None."""
        if not self._stopping:
            return lease
        try:
            self._client.release(
                lease.trial_id,
                ReleaseRequest(
                    attempt=lease.attempt, lease_id=lease.lease_id, reason="drained", checkpoint=lease.checkpoint
                ),
            )
        except ApiUnavailableError as error:
            _log.warning("%s; the lease of trial %d will expire", error, lease.number)
        return None

    def _wait(self, seconds: float) -> None:
        """Wait, but not beyond a signal."""
        deadline = self._clock() + seconds
        while not self._stopping and (left := deadline - self._clock()) > 0:
            self._inbox.get(lease_id=None, timeout_seconds=left)  # late messages about the last trial are dropped

    def _run_trial(self, lease: Lease, *, last: bool) -> None:
        folder = TrialFolder.of(
            self._config.checkpoint_dir, study_id=lease.study_id, trial_id=lease.trial_id, attempt=lease.attempt
        )
        self._child = self._standby.take()
        run = TrialRun(
            lease,
            job=self._job(lease, folder),
            child=self._child,
            folder=folder,
            reporter=Reporter(self._client, lease, partial(self._inbox.put, lease_id=lease.lease_id)),
            inbox=self._inbox,
            clock=self._clock,
        )
        if not last:
            self._standby.prepare()
        run.run()
        self._child = None
        if run.fatal is not None:
            raise run.fatal

    def _job(self, lease: Lease, folder: TrialFolder) -> Job:
        device = self._config.device
        return Job(
            config=lease.config,
            task=lease.task,
            folder=folder.path,
            attempt=lease.attempt,
            # Files from before the first attempt belong to a trial of an earlier database with the same ids.
            resume=lease.attempt > 1,
            checkpoint=lease.checkpoint,
            epochs_reported=lease.epochs_done,
            cache_dir=self._config.cache_dir,
            device=device.kind,
            threads=device.threads,
            bf16=device.bf16,
            deterministic=device.deterministic,
        )
