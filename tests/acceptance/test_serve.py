"""`hpo serve` from start to end: what it leaves behind, what it survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from hpo.errors import StoreUnavailableError

from .conftest import Service, serving, tiny_spec, wait_for


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def _postmaster(home: Path) -> int:
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])


def _children(pid: int) -> list[int]:
    """Return the children of every thread of a process."""
    return [int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in tasks.read_text().split()]


def _optimizer(service: Service) -> int | None:
    for child in _children(service.process.pid):
        if b"optimizer" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
            return child
    return None


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process_and_the_studies_stay(home: Path, tiny_videos: Path, end: signal.Signals) -> None:
    name = f"ended-by-{end.name}"
    with serving(home) as service:
        with service.client() as client:
            client.create_study(tiny_spec(tiny_videos, name))
        optimizer = wait_for(lambda: _optimizer(service), seconds=20)
        postmaster = _postmaster(home)
        service.process.send_signal(end)
        assert service.process.wait(60) in (0, 130)
        assert not (home / "server.json").exists()
        assert not _runs(postmaster)
        assert not _runs(optimizer)
    with serving(home) as again, again.client() as client:
        assert client.study(name)["state"] == "active"


def test_a_killed_optimizer_is_started_again_and_suggests_trials(home: Path, tiny_videos: Path) -> None:
    with serving(home) as service, service.client() as client:
        first = wait_for(lambda: _optimizer(service), seconds=20)
        os.kill(first, signal.SIGKILL)
        second = wait_for(lambda: found if (found := _optimizer(service)) not in (None, first) else None)
        client.create_study(tiny_spec(tiny_videos, "after-the-kill"))
        wait_for(lambda: client.trials("after-the-kill"))
        assert second != first


def test_a_killed_service_leaves_no_optimizer_behind_and_starts_again(home: Path) -> None:
    with serving(home) as service:
        optimizer = wait_for(lambda: _optimizer(service), seconds=20)
        service.process.kill()
        service.process.wait(10)
        wait_for(lambda: not _runs(optimizer), seconds=30)
    with serving(home) as again, again.client() as client:
        assert client.health()["status"] == "ok"


def test_a_service_outlives_its_database_and_ends_cleanly_without_it(home: Path, tiny_videos: Path) -> None:
    log = home.parent / "serve.log"
    with serving(home) as service, service.client() as client:
        second = service.run("hpo", "serve", "--port", "0", check=False)
        assert second.returncode == 1
        assert "a server runs in" in second.stderr
        assert client.url in second.stderr
        client.create_study(tiny_spec(tiny_videos, "outlives"))
        os.kill(_postmaster(home), signal.SIGKILL)
        wait_for(lambda: "runs again" in log.read_text(), seconds=60)
        assert client.study("outlives")["state"] == "active"
        (home / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
        os.kill(_postmaster(home), signal.SIGKILL)
        wait_for(lambda: "cannot be started" in log.read_text(), seconds=60)
        before = len(log.read_text().splitlines())
        for _ in range(40):
            with pytest.raises(StoreUnavailableError):
                client.study("outlives")
        assert len(log.read_text().splitlines()) - before <= 6
        service.process.terminate()
        assert service.process.wait(60) == 0
        assert "Traceback" not in log.read_text()
        assert not (home / "server.json").exists()


_SIGNALLED: Final = """
import signal, sys, weakref

class Finder:  # ends the process while `api.app` is imported, in a callback whose exceptions Python drops
    def find_spec(self, name, path, target=None):
        if name == "api.app":
            sys.meta_path.remove(self)
            lock = Finder()
            reference = weakref.ref(lock, lambda _: signal.raise_signal(signal.SIGTERM))
            del lock

sys.meta_path.insert(0, Finder())
from hpo.cli import main
main()
"""


def test_a_signal_while_it_starts_is_not_lost(home: Path) -> None:
    options = ["--home", str(home.parent / "ended"), "serve", "--port", "0", "--no-optimizer"]
    done = subprocess.run([sys.executable, "-c", _SIGNALLED, *options], timeout=280, capture_output=True, check=False)
    assert b"SystemExit" in done.stderr, "the exception was dropped"
    assert done.returncode == 0
    assert not (home.parent / "ended" / "postgres" / "data" / "postmaster.pid").exists()
