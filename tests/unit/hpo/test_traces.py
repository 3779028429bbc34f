"""Traces that are not wanted cost nothing: nothing is imported, and every call does nothing."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import pytest

from hpo import traces
from hpo.installation import child_environment

STUDY = UUID(int=7)


def test_nothing_is_imported_and_nothing_done_where_no_endpoint_is_set() -> None:
    script = (
        "import sys; from hpo import traces; traces.start('here'); "
        "assert traces.of_trial(None, 1) is None and traces.begin('a', None) is None; "
        "sys.exit('hpo.otel' in sys.modules or any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    quiet = {name: value for name, value in child_environment().items() if not name.startswith("OTEL_")}
    assert subprocess.run([sys.executable, "-c", script], env=quiet, check=False).returncode == 0


@pytest.mark.parametrize("header", [None, "00-" + "1" * 32 + "-" + "2" * 16 + "-01"])
def test_without_traces_a_span_is_passed_on_as_it_came(header: str | None) -> None:
    assert traces.of_trial(STUDY, 1) is None
    assert traces.record("report", header) == header
    traces.record_trial("trial", header, began=0.0)
    traces.stop()


def test_without_the_extra_it_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "hpo.otel", None)
    traces.start("here")
    assert traces.of_trial(STUDY, 1) is None
    assert "pip install 'video-hpo[otel]'" in caplog.text
