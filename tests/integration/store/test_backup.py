"""Backups: one moment of a study that goes on, restored whole or not at all, and what a check finds."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from hpo.errors import ConflictError, SetupError
from hpo.store import Database, backup, consistency, migrate
from hpo.store.migrate import head_revision
from tests.postgres import fresh_database

from .world import claim, finish, make_study, measurement, must_claim, record, report, run, scalar, suggest

TABLES = ("study", "trial", "attempt", "measurement", "event", "api_token")


def rows(database: Database) -> dict[str, list[str]]:
    """Return every row of every table as text."""
    with database.transaction() as connection:
        return {
            name: sorted(connection.execute(text(f"SELECT one::text FROM {name} AS one")).scalars())  # noqa: S608 - names of our tables
            for name in TABLES
        }


def wrong(database: Database) -> list[str]:
    with database.transaction() as connection:
        return list(consistency.problems(connection))


def test_a_backup_brings_back_every_row(
    database: Database, database_url: str, postgres_admin: Engine, tmp_path: Path
) -> None:
    suggest(database, make_study(database), 3)
    lease = must_claim(database)
    report(database, lease, measurement(1))
    finish(database, must_claim(database))
    expected, file = rows(database), tmp_path / "backup"
    backup.backup(database_url, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert backup.revision_of(file) == head_revision()
    with fresh_database(postgres_admin) as url:
        backup.restore(url, file)
        migrate(url)
        restored = Database(url)
        found = rows(restored)
        # Transactions are numbered anew in another cluster; this one is the same.
        assert found == expected
        assert wrong(restored) == []
        report(restored, lease, measurement(2))
        assert finish(restored, lease).state == "completed", "the worker of that time continues"
        assert wrong(restored) == [], "and what it did is in the totals"
        assert suggest(restored, make_study(restored, "new"))[0].id > 3, "numbers are not given out twice"
        restored.close()
        with pytest.raises(ConflictError, match="not empty"):
            backup.restore(url, file)
    assert record(database, lease.trial_id).state == "running", "the first database is as it was"


def test_a_backup_amid_a_study_is_one_moment_of_it(
    database: Database, database_url: str, postgres_admin: Engine, tmp_path: Path
) -> None:
    suggest(database, make_study(database), 90)
    stop, done = threading.Event(), threading.Event()

    def train() -> None:
        while not stop.is_set() and (lease := claim(database)) is not None:
            report(database, lease, measurement(1))
            finish(database, lease)
            done.set()

    worker = threading.Thread(target=train)
    worker.start()
    assert done.wait(30)
    backup.backup(database_url, tmp_path / "backup")
    stop.set()
    worker.join()
    with fresh_database(postgres_admin) as url:
        backup.restore(url, tmp_path / "backup")
        restored = Database(url)
        assert wrong(restored) == []
        with restored.transaction() as connection:
            assert scalar(connection, "SELECT count(*) FROM trial WHERE state = 'completed'") >= 1
        restored.close()


@pytest.mark.parametrize("damage", ["cut off", "bits flipped", "text", "missing", "another program's"])
def test_what_is_no_whole_backup_is_refused_and_changes_nothing(
    damage: str, database_url: str, empty_database_url: str, postgres_admin: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    database = Database(database_url)
    suggest(database, make_study(database), 50)
    database.close()
    match damage:
        case "cut off":
            backup.backup(database_url, file)
            file.write_bytes(file.read_bytes()[:-2000])
        case "bits flipped":
            backup.backup(database_url, file)
            content = bytearray(file.read_bytes())
            middle = content.rindex(b"\x78\x9c") + 8  # in the last compressed block
            content[middle : middle + 4] = bytes(255 - byte for byte in content[middle : middle + 4])
            file.write_bytes(bytes(content))
        case "text":
            file.write_text("CREATE TABLE study ();")
        case "another program's":
            with fresh_database(postgres_admin) as other:
                backup.backup(other, file)
    with pytest.raises(SetupError, match=r"backup|pg_restore"):
        backup.restore(empty_database_url, file)
    empty = Database(empty_database_url)
    with empty.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    empty.close()


def test_a_backup_of_a_newer_release_is_refused(
    database: Database, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    run(database, "UPDATE alembic_version SET version_num = '9999'")
    backup.backup(database_url, tmp_path / "backup")
    with pytest.raises(SetupError, match=r"newer video-hpo \(tables 9999\)"):
        backup.restore(empty_database_url, tmp_path / "backup")


def test_a_failed_backup_leaves_the_last_one_and_nothing_else(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    file.write_text("the last one")
    with pytest.raises(SetupError, match="pg_dump failed"):
        backup.backup(f"{database_url}_missing", file)
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]
    assert file.read_text() == "the last one"
    with pytest.raises(SetupError, match="cannot be written"):
        backup.backup(database_url, tmp_path / "missing" / "backup")


def test_a_password_is_no_argument_of_a_program() -> None:
    address, environment = backup._address("postgresql+psycopg2://me:s%40cret@host:5/name?sslmode=require")
    assert address == "postgresql://me@host:5/name?sslmode=require"
    assert environment == {"PGPASSWORD": "s@cret"}
    address, environment = backup._address("postgresql://me@host/name?password=s%40cret&sslmode=require")
    assert address == "postgresql://me@host/name?sslmode=require"
    assert environment == {"PGPASSWORD": "s@cret"}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE study SET next_number = next_number + 1", "the number of its trials"),
        ("UPDATE study SET live_trials = live_trials - 1", "count against its budget"),
        (
            "INSERT INTO study_total (study_id, state, trials, gpu_seconds, used_seconds, saved_seconds, enqueued,"
            " replicates, with_epochs) SELECT id, 'failed', 1, 0, 0, 0, 0, 0, 0 FROM study",
            "its totals count",
        ),
        ("DELETE FROM attempt", "trials run without an attempt"),
        (
            "UPDATE trial SET state = 'paused', lease_expires_at = NULL WHERE state = 'running'",
            "attempts run of trials",
        ),
        ("UPDATE measurement SET attempt = 7", "more attempts than they count"),
        ("UPDATE trial SET gpu_seconds = gpu_seconds + 1", "the device time"),
        ("UPDATE trial SET epochs_done = 0", "more epochs than they count"),
        ("UPDATE study SET spec = spec || '{\"new\": 1}'", "cannot be read by this release"),
        ("UPDATE alembic_version SET version_num = '0001'", "hpo db upgrade"),
    ],
)
def test_a_check_finds_what_does_not_agree(damage: str, sentence: str, database: Database) -> None:
    suggest(database, make_study(database), 2)
    report(database, must_claim(database), measurement(1))
    assert wrong(database) == []
    run(database, damage)
    assert sentence in " ".join(wrong(database))
