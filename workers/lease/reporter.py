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
from hpo.protocol import FinishRequest, Lease, Measurement, ReleaseRequest, ReportRequest
from hpo.trial import Decision

from ..errors import ApiRefusedError, ApiUnavailableError
from .backoff import Backoff
from .client import ApiClient

MEASUREMENTS_PER_REPORT = 100
"""After a long outage, a trial of thousands of epochs sends several reports."""
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
        condition: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is sent before `start`. `condition` and `clock` (seconds) are what it waits on."""
        self._client = client
        self._lease = lease
        self._answer = answer
        self._condition = condition or threading.Condition()
        self._clock = clock
        self._measurements: list[Measurement] = []
        self._checkpoint: str | None = None
        self._peak_memory_bytes: int | None = None
        self._last: FinishRequest | ReleaseRequest | None = None
        self._epoch = lease.epochs_done
        self._closed = False
        self._backoff = Backoff(most_seconds=lease.heartbeat_seconds)
        self._unavailable_since: float | None = None
        self._thread = threading.Thread(target=self.run, name=f"reporter-{lease.trial_id}", daemon=True)

    def start(self) -> None:
        """Start the thread, which sends the first heartbeat after one interval."""
        self._thread.start()

    def report(self, measurements: list[Measurement], *, checkpoint: str | None, peak: int | None = None) -> None:
        """Queue measurements behind earlier ones, with the newest checkpoint and the peak of memory in bytes."""
        with self._condition:
            self._measurements += measurements
            self._checkpoint = checkpoint
            self._peak_memory_bytes = peak
            self._condition.notify()

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
        return self._backoff.failures == 0 and (bool(self._measurements) or self._last is not None)

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
        return self._lease.heartbeat_seconds if isinstance(answer, Decided) else None

    def _send(self) -> Decided | Delivered:
        """Send the oldest measurements; without any the last message; without that a heartbeat."""
        with self._condition:
            batch, last = self._measurements[:MEASUREMENTS_PER_REPORT], self._last
        if last is not None and not batch:
            if isinstance(last, FinishRequest):
                self._client.finish(self._lease.trial_id, last)
            else:
                self._client.release(self._lease.trial_id, last)
            return Delivered()
        decision = self._client.report(self._lease.trial_id, self._request(batch))
        with self._condition:
            del self._measurements[: len(batch)]  # more may have been queued during the call
            if batch:
                self._epoch = batch[-1].step
        return Decided(decision=decision, epoch=self._epoch)

    def _request(self, batch: list[Measurement]) -> ReportRequest:
        return ReportRequest(
            attempt=self._lease.attempt,
            lease_id=self._lease.lease_id,
            measurements=batch,
            checkpoint=self._checkpoint,
            peak_memory_bytes=self._peak_memory_bytes,
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
