"""The thread that speaks to the API about one trial: heartbeats, reports, and at last the result, in order.

While nobody answers, everything waits here and training goes on. What waits is also in the newest checkpoint (the
curve is part of it), so that a worker that dies then loses nothing: the next one reports it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpo.errors import AuthenticationError, HpoError, PermissionDeniedError, StaleLeaseError
from hpo.protocol import FinishRequest, Lease, Measurement, ReleaseRequest, ReportRequest
from hpo.trial import Decision

from ..errors import ApiRefusedError, ApiUnavailableError
from .client import ApiClient, Backoff

_MOST_MEASUREMENTS = 100
"""Of one report: a trial of thousands of epochs comes back from a long outage in several."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The API answered; `epoch` is the last one reported so far."""

    decision: Decision
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """The API is away; training goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The result, or the trial itself, was handed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """The trial is no longer ours, or the API wants nothing of it."""

    reason: str
    fatal: HpoError | None = None
    """Set when this worker's token is refused: no other trial would fare better."""


Answer = Decided | Unanswered | Delivered | LeaseLost


class Reporter:
    """Keeps the lease of one trial alive and delivers what is known of it. `answer` is called from its thread."""

    def __init__(self, client: ApiClient, lease: Lease, answer: Callable[[Answer], None]) -> None:
        self._client = client
        self._lease = lease
        self._answer = answer
        self._condition = threading.Condition()
        self._measurements: list[Measurement] = []
        self._checkpoint: str | None = None
        self._peak_memory_bytes: int | None = None
        self._last: FinishRequest | ReleaseRequest | None = None
        self._epoch = lease.epochs_done
        self._closed = False
        self._backoff = Backoff(most_seconds=lease.heartbeat_seconds)
        self._away_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"reporter-{lease.trial_id}", daemon=True)

    def start(self) -> None:
        """Begin to send heartbeats."""
        self._thread.start()

    def report(self, measurements: list[Measurement], *, checkpoint: str | None, peak: int | None = None) -> None:
        """Queue measurements, in order, with the newest checkpoint."""
        with self._condition:
            self._measurements += measurements
            self._checkpoint = checkpoint
            self._peak_memory_bytes = peak
            self._condition.notify()

    def deliver(self, last: FinishRequest | ReleaseRequest) -> None:
        """Queue the last message, after everything that waits already."""
        with self._condition:
            self._last = last
            self._condition.notify()

    def close(self) -> None:
        """End the thread; what is not delivered stays undelivered. Returns when no call is under way."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        wait = self._lease.heartbeat_seconds
        while True:
            with self._condition:
                # After a failure the wait is a backoff, which new messages do not cut short.
                self._condition.wait_for(
                    lambda: self._closed or (self._is_urgent() and not self._backoff.failures), wait
                )
                if self._closed:
                    return
            try:
                ended = self._send()
            except ApiUnavailableError as error:
                wait = self._unavailable(error)
            except StaleLeaseError as error:
                return self._answer(LeaseLost(reason=str(error)))
            except (AuthenticationError, PermissionDeniedError) as error:
                return self._answer(LeaseLost(reason=str(error), fatal=error))
            except ApiRefusedError as error:
                return self._answer(LeaseLost(reason=str(error)))
            except Exception as error:  # a thread that dies in silence would leave the worker waiting for ever
                _log.exception("the reports of trial %d cannot be sent", self._lease.number)
                return self._answer(LeaseLost(reason=f"{type(error).__name__}: {error}"))
            else:
                self._available()
                if ended:
                    return self._answer(Delivered())
                wait = self._lease.heartbeat_seconds

    def _is_urgent(self) -> bool:
        return bool(self._measurements) or self._last is not None

    def _send(self) -> bool:
        """Send what is next in order: measurements or a heartbeat, then the last message. Returns whether that went."""
        with self._condition:
            batch, last = self._measurements[:_MOST_MEASUREMENTS], self._last
        if last is not None and not batch:
            if isinstance(last, FinishRequest):
                self._client.finish(self._lease.trial_id, last)
            else:
                self._client.release(self._lease.trial_id, last)
            return True
        decision = self._client.report(self._lease.trial_id, self._request(batch))
        with self._condition:
            del self._measurements[: len(batch)]
            if batch:
                self._epoch = batch[-1].step
        self._answer(Decided(decision=decision, epoch=self._epoch))
        return False

    def _request(self, batch: list[Measurement]) -> ReportRequest:
        return ReportRequest(
            attempt=self._lease.attempt,
            lease_id=self._lease.lease_id,
            measurements=batch,
            checkpoint=self._checkpoint,
            peak_memory_bytes=self._peak_memory_bytes,
        )

    def _unavailable(self, error: ApiUnavailableError) -> float:
        if self._away_since is None:
            self._away_since = time.monotonic()
            _log.warning("%s; training goes on, reports wait", error)
        self._answer(Unanswered())
        return self._backoff.next_seconds(error.retry_after)

    def _available(self) -> None:
        self._backoff.reset()
        if self._away_since is not None:
            _log.info("the API is back after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None
