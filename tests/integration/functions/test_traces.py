"""Traces of trials: a real service and a real worker send them to a receiver of OTLP over HTTP."""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import hpo

EPOCHS = 3


class _Receiver(BaseHTTPRequestHandler):
    spans: list[tuple[str, Any]]
    """Each with the name of the process that sent it."""

    def do_POST(self) -> None:
        """Take spans."""
        sent = ExportTraceServiceRequest()
        sent.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        for group in sent.resource_spans:
            named = {one.key: one.value.string_value for one in group.resource.attributes}
            self.spans += [(named["service.name"], span) for scope in group.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _receiver() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield the address of a receiver, and what it has received."""
    spans: list[tuple[str, Any]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Receiver", (_Receiver,), {"spans": spans})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", spans
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_the_life_of_a_trial_is_one_trace_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HPO_URL", "HPO_TOKEN", "HPO_HOME", "DATABASE_URL", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)

    def train(trial: Any) -> None:
        for epoch in trial.epochs():
            trial.report(score=epoch * trial.params["x"])

    with _receiver() as (address, spans), tempfile.TemporaryDirectory(prefix="hpo-traces-") as place:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        Path(place).chmod(0o755)
        result = hpo.tune(
            train,
            space={"x": (0.0, 4.0)},
            objective="score",
            epochs=EPOCHS,
            budget={"trials": 2},
            optimizer={"name": "random"},
            workers=1,
            threads=1,
            progress=False,
            home=Path(place) / "home",
        )
    assert result.state == "completed"
    traces: dict[bytes, list[tuple[str, Any]]] = defaultdict(list)
    for process, span in spans:
        traces[span.trace_id].append((process, span))
    whole = [found for found in traces.values() if any(span.name == "trial" for _, span in found)]
    assert len(whole) == 2
    for found in whole:
        assert {(process, span.name) for process, span in found} == {
            ("hpo-optimizer", "suggest"),
            ("hpo-api", "claim"),
            ("hpo-worker", "attempt"),
            ("hpo-worker", "epoch"),
            ("hpo-api", "report"),
            ("hpo-api", "finish"),
            ("hpo-api", "trial"),
        }
        by_name = defaultdict(list)
        for _, span in found:
            by_name[span.name].append(span)
        assert [len(by_name[name]) for name in ("trial", "claim", "attempt", "finish", "epoch", "report")] == [
            *(1,) * 4,
            *(EPOCHS,) * 2,
        ]
        (root,), (claim,), (attempt,) = (by_name[name] for name in ("trial", "claim", "attempt"))
        parents = {span.name: {one.parent_span_id for one in by_name[span.name]} for _, span in found}
        assert parents == {
            "trial": {b""},
            "suggest": {root.span_id},
            "claim": {root.span_id},
            "attempt": {claim.span_id},
            **{name: {attempt.span_id} for name in ("epoch", "report", "finish")},
        }
        assert claim.start_time_unix_nano <= attempt.start_time_unix_nano <= attempt.end_time_unix_nano
        epochs = {
            one.value.int_value for span in by_name["report"] for one in span.attributes if one.key == "hpo.epoch"
        }
        assert epochs == set(range(1, EPOCHS + 1))
