"""The worker's inbox: everything that happens reaches the one thread that decides through it."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from uuid import UUID

from ..process.child import ProcessExited
from ..process.messages import Event
from .reporter import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """SIGTERM or SIGINT arrived: the worker is to end."""


Message = Event | ProcessExited | Answer | Shutdown
"""From the training process, from the reporter, or from the signal handler."""


class Inbox:
    """A queue of messages; each may name the lease that it is about. Any thread and a signal handler may put."""

    def __init__(self) -> None:
        # Simple, because a signal handler puts into it: `Queue.put` may deadlock with the `get` that it interrupts.
        self._messages: queue.SimpleQueue[tuple[Message, UUID | None]] = queue.SimpleQueue()

    def put(self, message: Message, *, lease_id: UUID | None = None) -> None:
        """Add a message about the lease `lease_id`, or about the whole worker."""
        self._messages.put((message, lease_id))

    def get(self, *, lease_id: UUID | None, timeout_seconds: float | None) -> Message | None:
        """Wait for a message and return it; None after `timeout_seconds` (None: no limit).

        A late message about another lease than `lease_id` is dropped; the answer is then None too, before the time
        is over.
        """
        try:
            message, about = self._messages.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        return message if about in (None, lease_id) else None
