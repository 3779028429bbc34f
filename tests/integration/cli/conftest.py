"""The `hpo` command as a person runs it, in this process, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpo.cli import main

# The same servers as in the tests of the API: fixtures are found by being here.
from ..api.conftest import empty_service, past_service, service, shared_server
from ..api.service import Service

__all__ = ["empty_service", "past_service", "service", "shared_server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed, read as JSON."""
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def hpo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `hpo ARGUMENTS` against a service, with a data directory and the token of a scope."""

    def run(service: Service, *arguments: str | Path, scope: str = "admin") -> Said:
        token = tmp_path / f"{scope}.token"
        token.write_text(service.tokens[scope])
        root = ["--home", str(tmp_path), "--url", service.url, "--token-file", str(token)]
        with pytest.raises(SystemExit) as ended:
            main([*root, *map(str, arguments)])
        found = capsys.readouterr()
        return Said(code=int(ended.value.code or 0), out=found.out, err=found.err)

    return run
