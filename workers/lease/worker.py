"""The worker: claim a trial, run it, claim the next, until it is told to stop."""

from __future__ import annotations

import logging
import os
import queue
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from uuid import uuid4

from hpo.protocol import ClaimRequest, Lease, ReleaseRequest, WorkerInfo

from ..checkpoints.folder import TrialFolder
from ..device.detection import Device
from ..errors import ApiUnavailableError
from ..process.child import Child, StandbyProcess
from ..process.messages import Job
from .client import ApiClient, Backoff, jittered
from .trial_run import Envelope, Inbox, Stop, TrialRun

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
    """End after so long without a trial; None waits for ever."""
    max_trials: int | None = None


class Worker:
    """Runs trials one after another."""

    def __init__(self, config: WorkerConfig, client: ApiClient) -> None:
        self._config = config
        self._client = client
        self._inbox: Inbox = queue.SimpleQueue()
        self._standby = StandbyProcess(config.device, config.checkpoint_dir)
        self._child: Child | None = None
        self._stopping = False

    def install_signal_handlers(self) -> None:
        """Drain at the first SIGTERM or SIGINT, end at the second."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def run(self) -> None:
        """Work until idle for too long, `max_trials` are done, or a signal came.

        Raises:
            AuthenticationError, PermissionDeniedError, ApiRefusedError: the API wants nothing of this worker.
        """
        done = 0
        try:
            while not self._stopping and done != self._config.max_trials:
                self._standby.prepare()  # imports while the claim is on its way
                lease = self._claim()
                if lease is None:
                    break
                done += 1
                self._run_trial(lease, last=done == self._config.max_trials)
        finally:
            self._standby.close()

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
            client=self._client,
            inbox=self._inbox,
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
            # What lies there before the first attempt belongs to a database that is gone.
            resume=lease.attempt > 1,
            checkpoint=lease.checkpoint,
            epochs_reported=lease.epochs_done,
            cache_dir=self._config.cache_dir,
            device=device.kind,
            threads=device.threads,
            bf16=device.bf16,
            deterministic=device.deterministic,
        )

    def _claim(self) -> Lease | None:
        """Wait for a trial. None when it is time to end."""
        backoff = Backoff()
        since = time.monotonic()
        lease_id = uuid4()
        while not self._stopping:
            request = ClaimRequest(worker=self._config.info, lease_id=lease_id, study=self._config.study)
            try:
                reply = self._client.claim(request)
            except ApiUnavailableError as error:
                # The same lease id again: if only the reply was lost, it is answered with the trial that is ours.
                if not backoff.failures:
                    _log.warning("%s; trying again", error)
                wait = backoff.next_seconds(error.retry_after)
            else:
                if backoff.failures:
                    _log.info("the API answers again")
                    backoff.reset()
                if isinstance(reply, Lease):
                    return self._give_back(reply) if self._stopping else reply
                lease_id = uuid4()
                wait = jittered(reply.retry_after)
            if self._idle_too_long(since):
                _log.info("nothing to do for %.0f s; ending", time.monotonic() - since)
                return None
            self._wait(wait)
        return None

    def _idle_too_long(self, since: float) -> bool:
        limit = self._config.exit_when_idle_seconds
        return limit is not None and time.monotonic() - since >= limit

    def _give_back(self, lease: Lease) -> None:
        """Return a trial that came when it was too late to begin."""
        try:
            self._client.release(
                lease.trial_id,
                ReleaseRequest(
                    attempt=lease.attempt, lease_id=lease.lease_id, reason="drained", checkpoint=lease.checkpoint
                ),
            )
        except ApiUnavailableError as error:
            _log.warning("%s; the lease of trial %d will run out", error, lease.number)

    def _wait(self, seconds: float) -> None:
        """Wait, but not past a signal."""
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            try:
                self._inbox.get(timeout=left)  # what else comes here is late news of the last trial
            except queue.Empty:
                return

    def _signalled(self, number: int, _: FrameType | None) -> None:
        if self._stopping:
            if self._child is not None:
                os.kill(self._child.pid, signal.SIGKILL)
            os._exit(128 + number)
        self._stopping = True
        self._inbox.put(Envelope(lease_id=None, message=Stop()))
