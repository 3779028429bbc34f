"""The service as a person runs it: real commands in real processes, in a data directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from data.synthetic.dataset import make_demo_dataset
from hpo.client import UnreachableError
from hpo.client.http import Client
from hpo.settings import Settings

T = TypeVar("T")
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running `hpo serve` with its data directory."""

    home: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """That of a person whose HPO_HOME is the data directory."""
        keep = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "HPO_URL", "HPO_TOKEN")}
        return {**keep, "HPO_HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Return the ended process of one of our commands."""
        line = [str(BIN / str(command[0])), *(str(part) for part in command[1:])]
        done = subprocess.run(line, env=self.environment, capture_output=True, text=True, check=False, timeout=280)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def url(self) -> str:
        """The address of the API."""
        return str(json.loads((self.home / "server.json").read_text())["url"])

    def shell(self, lines: str, *, folder: Path) -> subprocess.CompletedProcess[str]:
        """Return the ended shell that ran lines of a document in a folder, with our commands on its path."""
        environment = {**self.environment, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        text = lines.replace("http://127.0.0.1:8000", self.url)
        command = ["bash", "-euo", "pipefail", "-c", text]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `hpo-worker` beside the test."""
        log = (self.home / f"worker-{time.monotonic_ns()}.log").open("wb")
        line = [str(BIN / "hpo-worker"), "--cpu", "--threads", "1", *arguments]
        with log, subprocess.Popen(line, env=self.environment, stdout=log, stderr=log) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)

    def client(self) -> Client:
        """Return a client with the token that the service left in its data directory."""
        settings = Settings.load(home=self.home)
        return Client(settings.api_url, settings.token, server_file=settings.proving_file)


def wait_for(get: Callable[[], T | None], *, seconds: float = 120.0) -> T:
    """Return the first true answer of `get`, asking again until the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := get()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


@contextmanager
def serving(home: Path) -> Iterator[Service]:
    """Run `hpo serve` in a data directory until the block ends."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "HPO_URL")}
    with (home.parent / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [BIN / "hpo", "--home", home, "serve", "--port", "0"], env=environment, stdout=log, stderr=log
        )
    try:
        ready = home / "server.json"
        wait_for(lambda: _served_by(ready) == process.pid or process.poll() is not None, seconds=90)
        assert process.poll() is None, (home.parent / "serve.log").read_text()
        service = Service(home=home, process=process)
        wait_for(lambda: _answers(service))
        yield service
    finally:
        process.terminate()
        process.wait(60)


def _served_by(file: Path) -> int | None:
    return int(json.loads(file.read_text())["pid"]) if file.exists() else None


def _answers(service: Service) -> bool:
    # On a machine that is busy, its first answer may come later than the proof of identity is waited for.
    with service.client() as client, suppress(UnreachableError):
        return bool(client.health()["status"] == "ok")
    return False


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """An empty data directory with a short path that the user of the embedded Postgres can reach."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-"))
    folder.chmod(0o711)
    yield folder / "home"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    """A service for the tests of one module."""
    with ExitStack() as stack:
        yield stack.enter_context(serving(home))


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, 36 clips of 16 frames."""
    root = tmp_path_factory.mktemp("videos") / "tiny"
    return make_demo_dataset(
        root, classes=("SlideLeft", "SlideRight"), groups=6, clips_per_group=3, frames=16, size=(48, 32)
    )


def tiny_spec(root: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Return the spec of a study that trains in seconds."""
    base = {"batch_size": 6, "model.width": 8, "clip": {"frames": 4, "size": 16}, "augment": {"flip": 0.0}}
    return {
        "name": name,
        "objectives": [{"metric": "val_top1"}],
        "task": {"dataset": {"root": str(root), "short_side": 16}, "epochs": 2, "base": base},
        "space": {
            "lr": {"type": "float", "low": 1e-3, "high": 0.1, "log": True},
            "model": {"type": "categorical", "choices": ["slowfast_r18", "r2plus1d_18"]},
            "model.alpha": {"type": "ordinal", "choices": [2, 4], "when": {"model": ["slowfast_r18"]}},
        },
        "budget": {"trials": 3},
        **changes,
    }
