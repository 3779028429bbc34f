"""`hpo serve` supervises its optimizer: it restarts it, releases its leases, and stops it."""

from __future__ import annotations

import io
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from hpo.cli import api_processes, home_access, serve, supervision
from hpo.cli.app import app
from hpo.cli.application import uvicorn_server
from hpo.cli.listening import Listening
from hpo.cli.logging_to_stderr import log_to_stderr
from hpo.errors import SetupError, StoreUnavailableError
from hpo.installation import SECRET_VARIABLES
from hpo.service import optimizer_process
from hpo.settings import ServedAddress, Settings
from hpo.store import studies

WAIT_SECONDS = 60.0
"""How long a test waits for what its supervisor does at once, on a machine that is busy."""


class FakeProcess:
    """A child process that lives until the test or the supervisor ends it."""

    def __init__(self, pid: int, command: list[str], options: dict[str, Any], *, stubborn: bool = False) -> None:
        self.pid, self.command, self.options = pid, command, options
        self.returncode: int | None = None
        self.ends: list[str] = []
        self.stdin = io.BytesIO()
        self._is_stubborn = stubborn

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.ends.append("terminate")
        if not self._is_stubborn:
            self.returncode = -signal.SIGTERM

    def kill(self) -> None:
        self.ends.append("kill")
        self.returncode = -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        self.ends.append(f"wait {timeout}")
        if self.returncode is None:
            raise subprocess.TimeoutExpired("optimizer", timeout or 0.0)
        return self.returncode


class World:
    """What a supervisor sees: processes, a store, and time that passes at once unless `holds_pauses`."""

    def __init__(self) -> None:
        self.started: queue.Queue[FakeProcess] = queue.Queue()
        self.paused: queue.Queue[float] = queue.Queue()
        self.story: list[str] = []
        self.holds_pauses = False
        self.is_down = False
        self.refusals = 0
        self._pid = 100

    def popen(self, command: list[str], **options: Any) -> FakeProcess:
        if self.refusals:
            self.refusals -= 1
            raise OSError("Cannot allocate memory")
        self._pid += 1
        process = FakeProcess(self._pid, command, options)
        self.story.append(f"start {process.pid}")
        self.started.put(process)
        return process

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.is_down:
            raise StoreUnavailableError
        yield None

    def release(self, _connection: None, owner: str) -> None:
        self.story.append(f"release {owner}")

    def event(self) -> threading.Event:
        world = self

        class Event(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                if timeout == supervision.RESTART_SECONDS:
                    world.story.append("pause")
                    world.paused.put(timeout)
                    return super().wait(WAIT_SECONDS if world.holds_pauses else 0)
                return super().wait(0.001)

        return Event()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(supervision, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": made.popen}))
    monkeypatch.setattr(supervision, "threading", SimpleNamespace(Event=made.event, Thread=threading.Thread))
    monkeypatch.setattr(studies, "release_generators", made.release)
    return made


@contextmanager
def supervising(world: World, home: Path = Path("/home/of/the/test")) -> Iterator[None]:
    database: Any = world
    before = threading.active_count()
    with serve._optimizer_process(Settings(home=home), database, "postgresql://somewhere"):
        yield
    assert threading.active_count() == before, "the supervisor has ended"


def test_a_dead_optimizer_is_replaced_after_a_pause_and_its_leases_are_given_back_before(world: World) -> None:
    with supervising(world):
        for status in (1, -9):
            world.started.get(timeout=WAIT_SECONDS).returncode = status
        last = world.started.get(timeout=WAIT_SECONDS)
    host = socket.gethostname()
    assert world.story == [
        "start 101",
        f"release {host}:101",
        "pause",
        "start 102",
        f"release {host}:102",
        "pause",
        "start 103",
    ]
    assert last.ends[0] == "terminate"


def test_the_optimizer_imports_nothing_from_the_current_folder(world: World) -> None:
    with supervising(world):
        process = world.started.get(timeout=WAIT_SECONDS)
    assert process.command[:2] == [sys.executable, "-P"]
    assert process.options["env"]["PYTHONSAFEPATH"] == "1"


def test_a_running_optimizer_is_left_alone_and_ends_with_the_service(world: World) -> None:
    with supervising(world):
        process = world.started.get(timeout=WAIT_SECONDS)
        assert process.ends == []
    assert process.ends == ["terminate", f"wait {supervision.STOP_SECONDS}"]
    assert world.story == ["start 101"], "it gives its leases back itself"


def test_a_stop_during_the_pause_starts_nothing_new(world: World) -> None:
    world.holds_pauses = True
    with supervising(world):
        world.started.get(timeout=WAIT_SECONDS).returncode = 1
        world.paused.get(timeout=WAIT_SECONDS)
    assert [line for line in world.story if line.startswith("start")] == ["start 101"]


def test_a_start_that_the_system_refuses_is_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.refusals = 1
    with supervising(world):
        world.started.get(timeout=WAIT_SECONDS)
    assert world.story == ["pause", "start 101"]
    assert "cannot be started (Cannot allocate memory); this is tried again" in caplog.text


def test_an_outage_of_the_database_does_not_keep_the_optimizer_from_coming_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.is_down = True
    with supervising(world):
        world.started.get(timeout=WAIT_SECONDS).returncode = 3
        world.started.get(timeout=WAIT_SECONDS)
    assert "the optimizer ended with status 3; it is started again" in caplog.text
    assert "the leases of the dead optimizer" in caplog.text


def test_the_optimizer_gets_the_database_and_a_pipe_that_closes_with_us(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_SECRET", "the key of all tokens")
    monkeypatch.setenv("HPO_TOKEN", "of somebody")
    with supervising(world, tmp_path):
        process = world.started.get(timeout=WAIT_SECONDS)
    assert process.command[-3:] == ["--home", str(tmp_path), "optimizer"]
    assert process.options["stdin"] is subprocess.PIPE
    environment = process.options["env"]
    assert not SECRET_VARIABLES & environment.keys()
    assert process.stdin.getvalue() == b"postgresql://somewhere\n"
    assert (environment["HPO_SUPERVISED"], environment["OMP_NUM_THREADS"]) == ("1", "1")
    assert environment["PATH"] == os.environ["PATH"]


def test_processes_of_the_api_get_the_socket_and_what_the_service_is_and_each_is_replaced(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HPO_SECRET", "the key of all tokens")
    monkeypatch.setenv("HPO_TOKEN", "of somebody")
    settings = Settings(home=tmp_path, database_url="postgresql://somewhere")
    served = ServedAddress(url="http://127.0.0.1:1", key="proof")
    with (
        socket.socket() as listener,
        api_processes.api_processes(settings, Listening(), served, listener, key=b"of tokens", count=2),
    ):
        processes = [world.started.get(timeout=WAIT_SECONDS) for _ in range(2)]
        told = json.loads(processes[0].stdin.getvalue())
        assert told["descriptor"] == listener.fileno()
        assert processes[0].options["pass_fds"] == (listener.fileno(),)
        processes[1].returncode = -9
        third = world.started.get(timeout=WAIT_SECONDS)
    assert ServedAddress(**told["served"]) == served
    assert "process 102 of the API ended with status -9; another is started" in caplog.text
    assert [process.ends[0] for process in (processes[0], third)] == ["terminate"] * 2
    assert (told["database_url"], bytes.fromhex(told["key"])) == ("postgresql://somewhere", b"of tokens")
    assert not SECRET_VARIABLES & third.options["env"].keys()
    assert not any("somewhere" in text for text in (*third.options["env"].values(), *third.command))


@pytest.mark.parametrize("count", range(1, api_processes.MOST_PROCESSES + 1))
def test_the_processes_leave_the_database_connections_for_others(count: int) -> None:
    """Each listens over one more, and the process that starts all has two; Postgres keeps 3 of its 100 for itself."""
    assert 97 - count * (api_processes.pool_size(count) + 1) - 2 >= 20, "for the optimizer"
    assert 1 <= api_processes.worker_connections(count) < api_processes.pool_size(count), "workers and pages have some"


def test_where_it_listens_is_the_same_in_another_process() -> None:
    listening = Listening(host="127.0.0.2", allowed_hosts=["a"], trusted_proxies=["10.0.0.1"])
    assert Listening.from_json(json.loads(json.dumps(listening.to_json()))) == listening


def test_an_optimizer_that_does_not_end_is_killed() -> None:
    process: Any = FakeProcess(1, [], {}, stubborn=True)
    supervision._end(process)
    assert process.ends == ["terminate", f"wait {supervision.STOP_SECONDS}", "kill", "wait None"]


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers of this process, as they were before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_what_the_service_logs_of_others_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()
    log_to_stderr()
    server = uvicorn_server(FastAPI(), Listening())
    assert not server.config.access_log, "an address may have the code of a link in it"
    for name in ("api.problems", "uvicorn.error"):
        logging.getLogger(name).warning("POST %s", "/studies/\x1b[2J\n2026 INFO hpo: all is well\u202e")
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("    ") for line in lines] == [False, True, False, True]
    assert not any(char in line for line in lines for char in "\x1b\u202e")


@pytest.mark.usefixtures("signals")
def test_a_supervised_optimizer_reads_the_address_of_the_database_from_the_pipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []
    monkeypatch.setattr("hpo.store.Database", lambda url: SimpleNamespace(url=url, close=lambda: None))
    monkeypatch.setattr(optimizer_process, "run", lambda database, **_: ran.append(database.url))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("HPO_SUPERVISED", "1")
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "optimizer"], input="postgresql://of-the-pipe\n")
    assert (result.exit_code, ran) == (0, ["postgresql://of-the-pipe"]), result.exception
    # One of 0.1.0, under which the installation was replaced, writes nothing.
    monkeypatch.setenv("DATABASE_URL", "postgresql://of-the-environment")
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "optimizer"], input="")
    assert (result.exit_code, ran[1:]) == (0, ["postgresql://of-the-environment"]), result.exception


def _close(*, sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


@pytest.mark.parametrize("is_upgraded", [False, True])
@pytest.mark.usefixtures("signals")
def test_a_process_of_the_api_takes_its_secrets_from_the_pipe_or_as_earlier_releases_hand_them_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_upgraded: bool
) -> None:
    given: dict[str, Any] = {}
    by_pipe: dict[str, str] = {"database_url": "postgresql://of-the-pipe", "key": b"of the pipe".hex()}
    if is_upgraded:
        by_pipe = {}
        monkeypatch.setenv("DATABASE_URL", "postgresql://of-the-environment")
        monkeypatch.setenv("HPO_SECRET", "the key of all tokens, of the environment")

    def database(url: str, **_: Any) -> SimpleNamespace:
        given["url"] = url
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr("hpo.store.Database", database)
    monkeypatch.setattr(api_processes, "make_application", lambda *_, key, **__: given.update(key=key))
    monkeypatch.setattr(api_processes, "uvicorn_server", lambda *_: SimpleNamespace(run=_close))
    listener = socket.socket()
    told = {
        "descriptor": listener.fileno(),
        "listening": Listening().to_json(),
        "served": {"url": "http://127.0.0.1:1", "key": "proof", "certificate": None},
        "processes": 2,
        **by_pipe,
    }
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "api-process"], input=json.dumps(told) + "\n")
    listener.detach()
    assert result.exit_code == 0, result.exception
    expected = "the key of all tokens, of the environment" if is_upgraded else "of the pipe"
    place = "environment" if is_upgraded else "pipe"
    assert given == {"url": f"postgresql://of-the-{place}", "key": expected.encode()}


@pytest.mark.usefixtures("signals")
def test_the_optimizer_owns_its_leases_under_the_name_by_which_they_are_released(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[object] = []
    monkeypatch.setattr("hpo.store.Database", lambda url: SimpleNamespace(url=url, close=lambda: ran.append("closed")))

    def run(database: Any, *, owner: str, stop: threading.Event, on_life: Callable[[], None]) -> None:
        on_life()
        ran.append((database.url, owner, stop.is_set()))

    monkeypatch.setattr(optimizer_process, "run", run)
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere")
    monkeypatch.delenv("HPO_SUPERVISED", raising=False)
    arguments = ["--home", str(tmp_path), "optimizer", "--alive-file", str(tmp_path / "alive")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "alive").exists()
    database: Any = world
    serve._release_leases(database, os.getpid())
    (released,) = world.story
    assert ran == [("postgresql://somewhere", released.removeprefix("release "), False), "closed"]


def test_a_file_for_probes_that_cannot_be_written_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere")
    arguments = ["--home", str(tmp_path), "optimizer", "--alive-file", str(tmp_path / "nowhere" / "alive")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SetupError)
    assert "nowhere/alive cannot be written" in str(result.exception)


def test_an_optimizer_alone_needs_to_know_the_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "optimizer"])
    assert isinstance(result.exception, SetupError)
    assert "set DATABASE_URL" in str(result.exception)


@pytest.mark.parametrize(("supervised", "stops"), [("1", True), ("", False)])
def test_a_supervised_optimizer_stops_when_the_pipe_of_its_parent_closes(
    monkeypatch: pytest.MonkeyPatch, supervised: str, stops: bool
) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    stop = threading.Event()
    monkeypatch.setenv("HPO_SUPERVISED", supervised)
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        serve._stop_with_parent(stop)
    assert stop.is_set() is stops


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with serve._listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1:{port} .* choose another --port"):
            serve._listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS):
            pass  # whoever comes before the server is ready waits instead of being refused


def test_the_file_with_the_address_and_its_key_is_for_this_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    (tmp_path / "server.new").write_text("left by a process that was killed")
    (tmp_path / "server.new").chmod(0o644)
    serve._write_for_us(file, "{}")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("{}", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_the_data_directory_is_made_for_this_user(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    serve.make_home(Settings(home=home))
    # Root's Postgres runs as another user, which passes through but may list nothing.
    assert home.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)
    home.chmod(0o755)
    serve.make_home(Settings(home=home))
    assert home.stat().st_mode & 0o777 == 0o755, "a folder that is there is left as it is"


def test_a_data_directory_that_everybody_may_write_into_is_refused(tmp_path: Path) -> None:
    for mode, what in (
        (0o777, "replace the secrets in"),
        (0o1777, "put files into"),
        (0o702, "replace the secrets in"),
    ):
        tmp_path.chmod(mode)
        with pytest.raises(SetupError, match=rf"can {what} .* `chmod o-w .*--home"):
            serve.make_home(Settings(home=tmp_path))


def test_in_a_folder_of_somebody_else_that_everybody_may_write_into_a_folder_of_ones_own_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a volume that a container has mounted: its mode is not for its user to change."""
    tmp_path.chmod(0o777)
    owner, own = tmp_path.stat().st_uid, os.geteuid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1000)
    with pytest.raises(SetupError, match=rf"belongs to user {owner}, so .* HPO_HOME={tmp_path}/hpo") as refused:
        serve.make_home(Settings(home=tmp_path))
    assert "chmod" not in str(refused.value)
    monkeypatch.setattr(os, "geteuid", own)
    serve.make_home(Settings(home=tmp_path / "hpo"))
    (warned,) = caplog.messages
    assert f"in place of {tmp_path / 'hpo'}: they may write into {tmp_path}" in warned
    caplog.clear()
    tmp_path.chmod(0o1777)
    serve.make_home(Settings(home=tmp_path / "hpo"))
    assert caplog.messages == []


def test_what_others_of_a_group_may_do_in_the_data_directory_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o755)
    for name in ("secret", "token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    serve.make_home(Settings(home=tmp_path))
    assert caplog.messages == []
    tmp_path.chmod(0o775)
    (tmp_path / "secret").chmod(0o640)
    (tmp_path / "token").chmod(0o604)
    serve.make_home(Settings(home=tmp_path))
    group, secret, token = caplog.messages
    assert f"every user of the group {tmp_path.stat().st_gid} can replace the secrets" in group
    assert f"other users could read {tmp_path / 'secret'} until now" in secret
    assert f"other users could read {tmp_path / 'token'} until now" in token


def test_a_secret_that_somebody_else_has_left_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "secret").write_text("known to somebody else")
    monkeypatch.setattr(home_access, "is_of_stranger", lambda found, home: (found.st_size, home) == (22, tmp_path))
    with pytest.raises(SetupError, match=r"secret belongs to user \d+, who knows what is in it: remove it"):
        serve.make_home(Settings(home=tmp_path))


def test_a_data_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"cannot be made .* choose another with --home"):
        serve.make_home(Settings(home=tmp_path / "file" / "home"))


def test_a_given_database_is_used_and_none_is_started() -> None:
    with serve.postgres(Settings(home=Path("/nowhere"), database_url="postgresql://given")) as url:
        assert url == "postgresql://given"
