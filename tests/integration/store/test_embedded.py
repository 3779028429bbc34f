"""The embedded server: shared by processes, surviving kills, leaving folders of others as they are."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from hpo.errors import SetupError, StoreUnavailableError
from hpo.store import Database, EmbeddedPostgres, embedded, migrate, server_programs, studies
from hpo.store.database import OutageLog
from hpo.store.server_programs import Programs
from tests.postgres import FAST

from .world import make_spec, make_study, scalar

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="about what happens under root")
USER = """
import sys
from pathlib import Path
from hpo.store import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1]), options={"fsync": "off"}) as url:
    print(url, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's user can reach, which pytest's own are not under root."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-pg-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def server(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder, options=FAST)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """The folder of a server that was made and has ended."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-pg-"))
    with server(folder):
        pass
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def copied(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers of this process begin with copies of one cluster: to make one takes longer than most tests here."""
    ours, make = Programs.prepare(cluster), embedded._make_cluster

    def copy(programs: Programs, data: Path) -> None:
        if (programs.major, programs.account) != (ours.major, ours.account):
            make(programs, data)
            return
        programs.make_own(data)
        subprocess.run(["/bin/cp", "-a", f"{cluster}/data/.", data], check=True)

    monkeypatch.setattr(embedded, "_make_cluster", copy)


def is_running(folder: Path) -> bool:
    return (folder / "data" / "postmaster.pid").exists()


def answer(url: str) -> int:
    database = Database(url, pool_size=1)
    try:
        with database.transaction() as connection:
            return int(scalar(connection, "SELECT 41 + 1"))
    finally:
        database.close()


def modes(folder: Path) -> dict[Path, int]:
    return {parent: stat.S_IMODE(parent.stat().st_mode) for parent in folder.parents}


def start_user(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Return a process that uses the server until its standard input ends, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_the_last_of_two_processes_stops_the_server_and_the_data_stay(place: Path) -> None:
    folder = place / "postgres"
    with server(folder) as url:
        migrate(url)
        database = Database(url)
        make_study(database)
        database.close()
        process, other_url = start_user(folder)
        assert other_url == url
    assert answer(url) == 42, "the other process still uses it"
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert not is_running(folder)
    with server(folder) as url:
        database = Database(url)
        with database.transaction() as connection:
            assert studies.get(connection, "study").spec == make_spec()
        database.close()


def test_an_interrupt_right_after_the_start_leaves_no_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(url: str) -> bool:
        raise KeyboardInterrupt(url)

    monkeypatch.setattr(embedded, "_answers", interrupted)
    with pytest.raises(KeyboardInterrupt), server(place):
        pass
    assert not is_running(place)


def test_after_its_owner_was_killed_the_server_is_joined_and_then_stopped(place: Path) -> None:
    folder = place / "postgres"
    process, url = start_user(folder)
    process.kill()
    process.communicate(timeout=60)
    assert is_running(folder)
    with server(folder) as again:
        assert again == url
        assert answer(again) == 42
    assert not is_running(folder)


def test_after_the_server_itself_was_killed_it_starts_again(place: Path) -> None:
    folder = place / "postgres"
    with server(folder) as url:
        postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        with server(folder) as again:
            assert answer(again) == 42
            assert again == url
    assert not is_running(folder)


def postmaster_of(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1200):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("is_deep", [False, True])
def test_a_server_that_dies_while_it_is_used_is_started_again(
    is_deep: bool, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = place / (("deep" * 30) if is_deep else "") / "postgres"
    # What was committed survives; FAST would not wait until it is written.
    with EmbeddedPostgres(folder, options={"fsync": "off"}) as url:
        migrate(url)
        database = Database(url)
        make_study(database)
        first = postmaster_of(folder)
        os.kill(first, signal.SIGKILL)

        def is_back() -> bool:
            try:
                with database.transaction() as connection:
                    return studies.get(connection, "study").spec == make_spec()
            except StoreUnavailableError:
                return False

        wait_until(lambda: "runs again" in caplog.text and is_back())
        assert postmaster_of(folder) != first
        assert caplog.text.count("has died") == 1
        database.close()
    assert not is_running(folder)


def test_a_server_that_cannot_be_started_again_is_said_once_and_left_cleanly(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.store.embedded._WAITS_SECONDS", (0.01, 0.01, 0.01))
    folder = place / "postgres"
    with server(folder) as url:
        settings = folder / "data" / "postgresql.conf"
        good = settings.read_text()
        settings.write_text("no_such_setting = 1\n")
        os.kill(postmaster_of(folder), signal.SIGKILL)
        wait_until(lambda: "cannot be started" in caplog.text)
        database = Database(url)
        for _ in range(30):
            with pytest.raises(StoreUnavailableError), database.transaction():
                pass
        assert caplog.text.count("unavailable") == 1
        assert caplog.text.count("cannot be started") == 1
        assert "no_such_setting" in caplog.text
        database.close()
    settings.write_text(good)
    with server(folder) as url:
        assert answer(url) == 42, "nothing was damaged"


def test_an_outage_is_said_once_then_every_minute_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [1000.0]
    outage = OutageLog(clock=lambda: now[0])
    for second in range(130):
        now[0] = 1000.0 + second
        outage.begun("gone")
    outage.over()
    outage.over()
    assert [entry.split(",")[0] for entry in caplog.messages] == [
        *["the database is unavailable: gone"] * 3,
        "the database answers again",
    ]
    caplog.clear()
    for _ in range(100):  # a lock that takes too long now and then
        now[0] += 0.1
        outage.begun("locked")
        outage.over()
    assert len(caplog.messages) <= 2 * (100 * 0.1 / 5 + 1)


def test_a_deep_folder_gets_its_socket_in_a_short_one(place: Path) -> None:
    folder = place / ("deep" * 30) / "postgres"
    with server(folder) as url:
        assert answer(url) == 42
        (sockets,) = [Path(part.replace("%2F", "/")) for part in url.split("host=")[1:]]
        assert len(str(sockets)) < 60
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_only_the_owner_can_reach_data_or_socket(place: Path) -> None:
    folder = place / "postgres"
    with server(folder):
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700


def test_a_half_made_database_is_made_anew(place: Path) -> None:
    folder = place / "postgres"
    unfinished = folder / "data.new"
    unfinished.mkdir(parents=True)
    folder.chmod(0o711)
    (unfinished / "PG_VERSION").write_text("18")
    (folder / "start.lock").touch()
    with server(folder) as url:
        assert answer(url) == 42


def test_a_database_of_a_version_that_is_not_here_is_refused(place: Path) -> None:
    folder = place / "postgres"
    with server(folder):
        pass
    (folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(SetupError, match=r"Postgres 9, but this is 18.*postgresql-9"), server(folder):
        pass


def test_the_data_of_an_older_version_are_taken_over_and_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "postgres"
    older = Programs.prepare(folder).of_major("16")
    if older is None:
        pytest.skip("the wheel has no programs of Postgres 16")
    with monkeypatch.context() as patched:
        patched.setattr(Programs, "prepare", lambda _: older)
        with EmbeddedPostgres(folder, options={"fsync": "off"}) as url:
            migrate(url)
            database = Database(url)
            make_study(database)
            database.close()
    assert (folder / "data" / "PG_VERSION").read_text().strip() == "16"
    with server(folder) as url:
        assert (folder / "data" / "PG_VERSION").read_text().strip() == "18"
        migrate(url)
        database = Database(url)
        with database.transaction() as connection:
            assert studies.get(connection, "study").spec == make_spec()
        database.close()
    assert (folder / "data.pg16" / "PG_VERSION").exists(), "the old data are kept"
    assert not (folder / "upgrade").exists()
    # A kill between the two renames: the next start finds the whole new data, and makes no empty database.
    (folder / "data").rename(folder / "data.upgraded")
    with server(folder) as url:
        database = Database(url)
        with database.transaction() as connection:
            assert studies.get(connection, "study").name == "study"
        database.close()


def test_what_the_server_complains_about_reaches_the_person(place: Path) -> None:
    with (
        pytest.raises(SetupError, match=r"embedded Postgres failed .*no_such_setting"),
        EmbeddedPostgres(place / "postgres", options={"no_such_setting": "1"}),
    ):
        pass


@as_root
def test_a_closed_parent_is_refused_and_stays_closed(place: Path) -> None:
    closed = place / "home"
    closed.mkdir(mode=0o700)
    with pytest.raises(SetupError, match=r"home is closed to other users; .*HPO_HOME.*DATABASE_URL"):
        server(closed / "data" / "postgres").__enter__()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert list(closed.iterdir()) == []


@as_root
def test_a_closed_folder_with_other_files_is_refused(place: Path) -> None:
    folder = place / "mine"
    folder.mkdir(mode=0o700)
    (folder / "diary.txt").touch()
    with pytest.raises(SetupError, match="holds other files"):
        server(folder).__enter__()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@as_root
def test_a_folder_of_another_user_is_refused(place: Path) -> None:
    folder = place / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(SetupError, match="belongs to another user"):
        server(folder).__enter__()


@as_root
def test_no_parent_is_opened(place: Path) -> None:
    place.chmod(0o711)
    folder = place / "postgres"
    before = modes(folder)
    with server(folder):
        assert modes(folder) == before


@as_root
def test_programs_in_a_closed_environment_are_copied_not_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = server_programs.wheel()
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    package = closed / wheel.parent.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(wheel / part, package / wheel.name / part)
    shutil.copytree(wheel.parent.with_name(f"{wheel.parent.name}.libs"), closed / f"{wheel.parent.name}.libs")
    monkeypatch.setattr(server_programs, "wheel", lambda: package / wheel.name)
    folder = place / "postgres"
    for _ in range(2):
        with server(folder) as url:
            assert answer(url) == 42
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert len(list(folder.glob("programs-*"))) == 1


@as_root
def test_an_ordinary_user_runs_the_server_without_another_user(place: Path) -> None:
    folder = place / "postgres"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with server(folder) as url:
                code = 0 if answer(url) == 42 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (folder / "data").stat().st_uid == NOBODY
    assert not is_running(folder)


def test_a_database_that_went_away_is_unavailable_and_comes_back(place: Path) -> None:
    folder = place / "postgres"
    with server(folder) as url:
        migrate(url)
        database = Database(url)
        study = make_study(database)
        with pytest.raises(StoreUnavailableError, match="try again shortly"):
            _be_cut_off(database, url)
        assert answer(url) == 42
    with pytest.raises(StoreUnavailableError), database.transaction():
        pass
    with server(folder):
        with database.transaction() as connection:
            assert studies.get(connection, "study").id == study.id
        database.close()


def test_an_address_that_is_not_a_postgres_url_is_explained() -> None:
    for url, reason in (("sqlite:///x.db", "begins with 'sqlite'"), ("nonsense", "cannot be read")):
        with pytest.raises(SetupError, match=reason):
            Database(url)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Database("postgres://me:secret@127.0.0.1/x"))


def _be_cut_off(database: Database, url: str) -> None:
    """Lose the connection in the middle of a transaction."""
    other = Database(url, pool_size=1)
    with database.transaction() as connection:
        with other.transaction() as killer:
            mine = scalar(connection, "SELECT pg_backend_pid()")
            scalar(killer, "SELECT pg_terminate_backend(:pid, 10000)", pid=mine)
        other.close()
        connection.execute(text("SELECT 1"))
