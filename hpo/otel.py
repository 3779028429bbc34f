"""What sends traces (`hpo.traces`): the only module that imports OpenTelemetry, of the extra `otel`."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

Value = str | int | float | bool
Attributes = Mapping[str, Value | None]

_FORM: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_wanted: ContextVar[tuple[int, int] | None] = ContextVar("wanted ids", default=None)
"""Ids of the trace and of the span that are made next; None for random ones."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the life of a trial that has begun."""

    traceparent: str
    """What its own parts belong to, here and in other processes."""
    _span: trace.Span

    def end(self, **attributes: Value | None) -> None:
        """Note that it has ended, and what is known of it now."""
        self._span.set_attributes(_known(attributes))
        self._span.end()


class Tracing:
    """Sends spans to the endpoint that the environment names, in the background."""

    def __init__(self, process: str) -> None:
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": process}
        self._provider = TracerProvider(resource=Resource.create(named), id_generator=_Ids())
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("video-hpo")

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def root(self, trace_id: str) -> str:
        """Return what belongs to the whole of a trace."""
        return _traceparent(int(trace_id, 16), _root_of(trace_id))

    def begin(self, name: str, parent: str | None, began: float | None, attributes: Attributes) -> Span | None:
        """Begin a span below `parent`; None where that is none."""
        found = _FORM.fullmatch(parent or "")
        if found is None:
            return None
        made = self._tracer.start_span(
            name, _below(found), start_time=_nanoseconds(began), attributes=_known(attributes)
        )
        context = made.get_span_context()
        return Span(_traceparent(context.trace_id, context.span_id), made)

    def record_root(self, name: str, parent: str | None, began: float, attributes: Attributes) -> None:
        """Send the span of the whole trace that `parent` is in: it ends now."""
        found = _FORM.fullmatch(parent or "")
        if found is None:
            return
        with _ids_are(int(found[1], 16), _root_of(found[1])):
            made = self._tracer.start_span(
                name, Context(), start_time=_nanoseconds(began), attributes=_known(attributes)
            )
        made.end()


class _Ids(RandomIdGenerator):
    """Random ids, but those that are wanted."""

    def generate_trace_id(self) -> int:
        wanted = _wanted.get()
        return super().generate_trace_id() if wanted is None else wanted[0]

    def generate_span_id(self) -> int:
        wanted = _wanted.get()
        return super().generate_span_id() if wanted is None else wanted[1]


@contextmanager
def _ids_are(trace_id: int, span_id: int) -> Iterator[None]:
    token = _wanted.set((trace_id, span_id))
    try:
        yield
    finally:
        _wanted.reset(token)


def _below(found: re.Match[str]) -> Context:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    parent = trace.SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())


def _root_of(trace_id: str) -> int:
    """Return the id of the span of the whole trace: every process knows it. It is never 0, which is no id."""
    return int(hashlib.sha256(trace_id.encode()).hexdigest()[:16], 16) | 1


def _traceparent(trace_id: int, span_id: int) -> str:
    return f"00-{trace_id:032x}-{span_id:016x}-01"


def _known(attributes: Attributes) -> dict[str, Value]:
    return {f"hpo.{name}": value for name, value in attributes.items() if value is not None}


def _nanoseconds(moment: float | None) -> int:
    return int((time.time() if moment is None else moment) * 1e9)
