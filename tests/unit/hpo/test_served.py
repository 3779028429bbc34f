"""Which server a data directory belongs to: the living one, never one that was killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpo.cli.serve import own_home
from hpo.errors import SetupError
from hpo.served import is_served, serving_home
from hpo.settings import DEFAULT_URL, Settings

URL = "http://127.0.0.1:1234"
FILE: dict[str, Any] = {"url": URL, "key": "k", "pid": os.getpid(), "host": socket.gethostname()}
SERVER = """
import sys
from pathlib import Path
from hpo.cli.serve import own_home
from hpo.settings import Settings
with own_home(Settings(home=Path(sys.argv[1]))):
    (Path(sys.argv[1]) / "server.json").write_text(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.read()
"""


def start(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SERVER, str(home), json.dumps(FILE)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def address(home: Path) -> str:
    return Settings.load(home=home).api_url


@pytest.fixture(autouse=True)
def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HPO_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_address_of_a_server_holds_for_as_long_as_it_lives(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert address(tmp_path) == URL
    process.communicate(timeout=60)
    assert not (tmp_path / "server.json").exists()
    assert address(tmp_path) == DEFAULT_URL


def test_the_address_of_a_killed_server_is_not_trusted_and_stays_for_the_next(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    left = tmp_path / "server.json"
    assert left.exists(), "the process of its number lives: it is this one"
    assert address(tmp_path) == DEFAULT_URL
    assert left.exists(), "who only asks deletes nothing"
    with own_home(Settings(home=tmp_path)) as is_owner:
        assert is_owner
        assert not left.exists(), "it holds the lock, and has not said where it listens"


def test_a_second_server_is_refused_or_leaves_the_first_its_file(tmp_path: Path) -> None:
    process = start(tmp_path)
    with pytest.raises(SetupError, match=r"a server runs in .* already, at http://127\.0\.0\.1:1234: use or stop"):
        own_home(Settings(home=tmp_path)).__enter__()
    with own_home(Settings(home=tmp_path, database_url="postgresql://shared")) as is_owner:
        assert not is_owner
    assert address(tmp_path) == URL
    process.communicate(timeout=60)


@pytest.mark.parametrize("host", [None, "another machine", socket.gethostname()])
def test_what_is_believed_of_a_server_that_this_machine_cannot_see(host: str | None, tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(json.dumps({**FILE, "host": host}))
    assert address(tmp_path) == URL, "an earlier release holds no lock"
    with serving_home(tmp_path):
        pass
    assert address(tmp_path) == (URL if host == "another machine" else DEFAULT_URL)


def test_who_asks_at_that_moment_does_not_keep_a_server_from_starting(tmp_path: Path) -> None:
    with serving_home(tmp_path):
        assert [is_served(tmp_path) for _ in range(50)] == [True] * 50
    assert not is_served(tmp_path)
    with serving_home(tmp_path) as is_owner:
        assert is_owner
