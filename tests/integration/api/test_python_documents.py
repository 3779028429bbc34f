"""The programs of the pages on Python run as they are printed, against a service with nothing but its API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpo.store import Database
from tests.documents import blocks

from .service import Service, serving


@pytest.fixture
def service(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that the programs find without an address; points of Sobol's sequence are at hand at once."""
    with serving(database, fallback_seconds=0.0) as running:
        monkeypatch.setenv("HPO_URL", running.url)
        monkeypatch.setenv("HPO_TOKEN", running.tokens["admin"])
        yield running


def test_the_programs_of_the_client(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    programs = [block.as_run for block in blocks("docs/python-client.md", "python")]
    # Ask and tell makes the study that the others look at.
    programs.sort(key=lambda program: "create_study(SPEC)" not in program)
    for program in programs:
        exec(program, {"__name__": "__main__"})  # noqa: S102 - from our pages
    printed = capsys.readouterr().out
    assert "own completed" in printed
    assert printed.count("trial.") == 8, "the events of the ends of eight trials"
    assert "params_x" in printed
    assert service.http is not None


def test_the_script_from_optuna(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    [program] = blocks("docs/from-optuna.md", "python")
    exec(program.as_run, {"__name__": "__main__"})  # noqa: S102 - from our pages
    assert "params_alpha" in capsys.readouterr().out
    with service.http() as http:
        assert http.get("/v1/studies/digits").json()["state"] == "completed"
