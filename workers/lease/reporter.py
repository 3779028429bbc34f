"""The thread that speaks to the API about one trial: heartbeats, measurements and, last, the result; in this order.

While the API does not answer, measurements are kept here and training continues. They are also in the newest
checkpoint (the curve is part of it), so that nothing is lost if the worker dies: its successor reports them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpo.errors import AuthenticationError, HpoError, PermissionDeniedError, StaleLeaseError
from hpo.protocol import (
    Confusion,
    Fence,
    FinishRequest,
    Lease,
    LoadedWeights,
    Measurement,
    Progress,
    ReleaseRequest,
    ReportRequest,
)
from hpo.trial import Decision

from ..errors import ApiRefusedError, ApiUnavailableError
from .attempt_log import AttemptLog
from .backoff import Backoff
from .client import ApiClient

MEASUREMENTS_PER_REPORT = 100
"""After a long outage, a trial of thousands of epochs sends several reports."""
LOG_SECONDS = 30.0
"""The least time from one look at the attempt's log to the next."""
PROGRESS_SECONDS = 10.0
"""The least time from one report with the progress to the next."""
_LOG_TRIES = 3
"""How often the end of a log is sent before the trial's result is sent without it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The API answered a report; `epoch` is the last epoch that it knows."""

    decision: Decision
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """The API cannot be reached; training continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The API accepted the last message: the trial's result or its release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """The trial is not this worker's any more, or the API refuses what is reported about it."""

    reason: str
    fatal: HpoError | None = None
    """Set where the token is refused: this worker could not report on another trial either."""


Answer = Decided | Unanswered | Delivered | LeaseLost


class Reporter:
    """Keeps the lease of one trial alive and delivers what is known of the trial.

    `answer` is called in the reporter's thread, once for every call to the API.
    """

    def __init__(
        self,
        client: ApiClient,
        lease: Lease,
        answer: Callable[[Answer], None],
        *,
        log: AttemptLog | None = None,
        condition: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            log: what the attempt prints; its end is sent from time to time, and before the last message.
            condition, clock: what it waits on, in seconds.
        """
        self._client = client
        self._lease = lease
        self._answer = answer
        self._condition = condition or threading.Condition()
        self._clock = clock
        self._measurements: list[Measurement] = []
        self._weights: list[LoadedWeights] = []
        self._dataset_version: str | None = None
        self._confusion: Confusion | None = None
        self._progress: Progress | None = None
        self._progress_sent_at = clock() - PROGRESS_SECONDS
        self._checkpoint: str | None = None
        self._peak_memory_bytes: int | None = None
        self._last: FinishRequest | ReleaseRequest | None = None
        self._epoch = lease.epochs_done
        self._closed = False
        self._backoff = Backoff(most_seconds=lease.heartbeat_seconds)
        self._unavailable_since: float | None = None
        self._printed = log
        self._log_failures = 0
        self._log_sent_at = clock()
        self._thread = threading.Thread(target=self.run, name=f"reporter-{lease.trial_id}", daemon=True)

    def start(self) -> None:
        """Start the thread, which sends the first heartbeat after one interval."""
        self._thread.start()

    def report(
        self,
        measurements: list[Measurement],
        *,
        checkpoint: str | None,
        peak: int | None = None,
        confusion: Confusion | None = None,
    ) -> None:
        """Queue measurements behind earlier ones, with the newest checkpoint and the peak of memory in bytes."""
        with self._condition:
            self._measurements += measurements
            self._confusion = confusion or self._confusion
            self._checkpoint = checkpoint
            self._peak_memory_bytes = peak
            self._condition.notify()

    def report_start(self, weights: list[LoadedWeights], dataset_version: str | None) -> None:
        """Queue what the training starts from and reads; it is sent before all measurements that follow."""
        with self._condition:
            self._weights = weights
            self._dataset_version = dataset_version
            self._condition.notify()

    def show(self, progress: Progress) -> None:
        """Have the next heartbeat say how far the attempt is."""
        with self._condition:
            self._progress = progress

    def deliver(self, last: FinishRequest | ReleaseRequest) -> None:
        """Queue the last message behind all measurements."""
        with self._condition:
            self._last = last
            self._condition.notify()

    def close(self) -> None:
        """End the thread and wait for it; what is not delivered yet is dropped."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def run(self) -> None:
        """Send until the last message is delivered, the lease is lost or `close` is called: the thread's work."""
        wait_seconds: float | None = self._lease.heartbeat_seconds
        while wait_seconds is not None and not self._is_closed_after(wait_seconds):
            wait_seconds = self._send_next()

    def _is_closed_after(self, seconds: float) -> bool:
        """Wait until there is something to send, at most `seconds`, and return whether `close` was called."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._may_send_at_once(), seconds)
            return self._closed

    def _may_send_at_once(self) -> bool:
        # After a failure the wait is a backoff, which new messages do not shorten.
        return self._backoff.failures == 0 and (
            bool(self._measurements or self._weights or self._dataset_version) or self._last is not None
        )

    def _send_next(self) -> float | None:
        """Send what is next, hand on the answer, and return the seconds until the next call; None after the last."""
        answer: Answer
        try:
            answer = self._send()
        except ApiUnavailableError as error:
            return self._unavailable(error)
        except (StaleLeaseError, ApiRefusedError) as error:
            answer = LeaseLost(reason=str(error))
        except (AuthenticationError, PermissionDeniedError) as error:
            answer = LeaseLost(reason=str(error), fatal=error)
        except Exception as error:  # the worker would wait for ever for a thread that ends without an answer
            _log.exception("the reports of trial %d cannot be sent", self._lease.number)
            answer = LeaseLost(reason=f"{type(error).__name__}: {error}")
        else:
            self._available()
        self._answer(answer)
        if not isinstance(answer, Decided):
            return None
        if self._clock() - self._log_sent_at >= LOG_SECONDS:
            self._send_log()
        return self._lease.heartbeat_seconds

    def _send(self) -> Decided | Delivered:
        """Send the oldest measurements; without any the last message; without that a heartbeat."""
        with self._condition:
            batch, last = self._measurements[:MEASUREMENTS_PER_REPORT], self._last
            weights, version, confusion = self._weights, self._dataset_version, self._confusion
            progress = self._progress if self._clock() - self._progress_sent_at >= PROGRESS_SECONDS else None
        if last is not None and not batch and not weights and version is None:
            self._send_end_of_log()
            if isinstance(last, FinishRequest):
                self._client.finish(self._lease.trial_id, last)
            else:
                self._client.release(self._lease.trial_id, last)
            return Delivered()
        reply = self._client.report(self._lease.trial_id, self._request(batch, weights, progress, version, confusion))
        if reply.notice is not None:
            _log.warning("trial %d: %s", self._lease.number, reply.notice)
        with self._condition:
            self._weights, self._dataset_version = [], None
            if self._confusion is confusion:
                self._confusion = None
            if progress is not None:
                self._progress_sent_at = self._clock()
                if self._progress is progress:
                    self._progress = None
            del self._measurements[: len(batch)]  # more may have been queued during the call
            if batch:
                self._epoch = batch[-1].step
        return Decided(decision=reply.decision, epoch=self._epoch)

    def _send_end_of_log(self) -> None:
        """Send the rest of the log before the last message, after which this worker may not speak of the trial.

        Raises:
            ApiUnavailableError: it is worth another try.
        """
        if not self._send_log() and self._log_failures < _LOG_TRIES:
            raise ApiUnavailableError(f"the log of trial {self._lease.number} could not be sent")

    def _send_log(self) -> bool:
        """Send what is new in the log; return False if the API did not answer. A log is never worth a trial."""
        self._log_sent_at = self._clock()
        fence = Fence(attempt=self._lease.attempt, lease_id=self._lease.lease_id)
        try:
            while self._printed is not None and (part := self._printed.next_part(fence)) is not None:
                self._client.append_log(self._lease.trial_id, part)
                self._printed.accepted()
                self._log_failures = 0
        except ApiUnavailableError:
            self._log_failures += 1
            return False
        except HpoError as error:  # an API without this call; whatever else is wrong, a report finds out
            _log.debug("the log of trial %d is not sent: %s", self._lease.number, error)
            self._printed = None
        return True

    def _request(
        self,
        batch: list[Measurement],
        weights: list[LoadedWeights],
        progress: Progress | None,
        version: str | None,
        confusion: Confusion | None,
    ) -> ReportRequest:
        return ReportRequest(
            attempt=self._lease.attempt,
            lease_id=self._lease.lease_id,
            measurements=batch,
            checkpoint=self._checkpoint,
            peak_memory_bytes=self._peak_memory_bytes,
            weights=weights,
            progress=progress,
            dataset_version=version,
            confusion=confusion,
        )

    def _unavailable(self, error: ApiUnavailableError) -> float:
        if self._unavailable_since is None:
            self._unavailable_since = self._clock()
            _log.warning("%s; training continues, and its reports are sent later", error)
        self._answer(Unanswered())
        return self._backoff.next_seconds(error.retry_after)

    def _available(self) -> None:
        self._backoff.reset()
        if self._unavailable_since is not None:
            _log.info("the API answers again after %.0f s", self._clock() - self._unavailable_since)
            self._unavailable_since = None
