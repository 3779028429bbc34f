"""The lives of trials as traces of OpenTelemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set; else nothing is imported.

A trial is one trace, whose id follows from its study and itself: the optimizer, the API and the workers of all its
attempts agree on it without a word. A span goes on from one process to the next as the header `traceparent` of W3C's
Trace Context. `start` is called once in a process; before it, and where traces are off, everything here does nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from .otel import Span, Tracing, Value

log = logging.getLogger(__name__)

HEADER: Final = "traceparent"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_tracing: Tracing | None = None


def start(process: str) -> None:
    """Send traces from now on, as the service `process` unless `OTEL_SERVICE_NAME` says another, if they are wanted."""
    global _tracing  # noqa: PLW0603 - of the process, as what is behind it
    is_wanted = any(os.environ.get(name) for name in _ENDPOINTS)
    if not is_wanted or _tracing is not None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from .otel import Tracing
    except ImportError:
        log.warning("there are no traces, although an endpoint for them is set: pip install 'video-hpo[otel]'")
        return
    _tracing = Tracing(process)


def stop() -> None:
    """Send what is left, and nothing more."""
    global _tracing  # noqa: PLW0603 - as above
    if _tracing is not None:
        _tracing.close()
    _tracing = None


def of_trial(study: UUID | None, trial_id: int) -> str | None:
    """Return what the spans of a trial belong to; None where traces are off, or the study is not known."""
    if _tracing is None or study is None:
        return None
    trace = hashlib.sha256(f"{study}/{trial_id}".encode()).hexdigest()[:32]
    return _tracing.root(trace)


def begin(name: str, parent: str | None, *, began: float | None = None, **attributes: Value | None) -> Span | None:
    """Begin a span below `parent`, now or at the Unix time `began`; None where traces are off."""
    return None if _tracing is None else _tracing.begin(name, parent, began, attributes)


def record(name: str, parent: str | None, *, began: float | None = None, **attributes: Value | None) -> str | None:
    """Send a span that ends now, and return what its own parts would belong to."""
    span = begin(name, parent, began=began, **attributes)
    if span is None:
        return parent
    span.end()
    return span.traceparent


def record_trial(name: str, parent: str | None, *, began: float, **attributes: Value | None) -> None:
    """Send the span above all others of a trial, which has ended. `parent` is any of them."""
    if _tracing is not None:
        _tracing.record_root(name, parent, began, attributes)
