"""The log of one attempt, in the parts in which it is sent to the API: only its end, and each part once."""

from __future__ import annotations

from pathlib import Path

from hpo.protocol import LOG_KEPT_BYTES, LOG_PART_BYTES, Fence, LogRequest


class AttemptLog:
    """Reads a log that grows.

    A part that was not accepted is the next one again, unchanged: the API may have kept it although its reply was lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._part: tuple[int, bytes] | None = None

    def next_part(self, fence: Fence) -> LogRequest | None:
        """Return what comes next; None if there is nothing new, or if the log cannot be read."""
        if self._part is None:
            self._part = self._read()
        if self._part is None:
            return None
        start, content = self._part
        return LogRequest(
            attempt=fence.attempt,
            lease_id=fence.lease_id,
            start=start,
            stop=start + len(content),
            text=content.decode("utf-8", "replace"),
        )

    def accepted(self) -> None:
        """Go on behind the part that :meth:`next_part` returned last."""
        if self._part is not None:
            self._at = self._part[0] + len(self._part[1])
            self._part = None

    def _read(self) -> tuple[int, bytes] | None:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                start = file.seek(max(self._at, size - LOG_KEPT_BYTES))
                content = file.read(LOG_PART_BYTES)
        except OSError:
            return None
        # Whole lines, so that no character is cut in two; unless a line is longer than a part.
        whole = content.rfind(b"\n") + 1
        if len(content) == LOG_PART_BYTES and whole:
            content = content[:whole]
        return (start, content) if content else None
