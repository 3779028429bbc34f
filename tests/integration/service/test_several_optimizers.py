"""Several `hpo optimizer` share the studies: real processes on a real Postgres, of which one is killed, added, stopped.

A trigger keeps the history of every lease. It shows that no study ever had two planners at one time: each change of
hands began after the lease before was given back or had expired, and each suggestion lies within the lease of whoever
made it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text

from hpo.installation import child_environment, python_command
from hpo.store import Database, optimizers, studies
from hpo.store.studies import StudyRow

from ..store.world import must_claim
from .studies import create, finish, records, waiting

STUDIES: Final = 12
WAIT_SECONDS: Final = 240.0
"""How long the test waits for what takes seconds, on a machine that is busy."""
_PROGRAM: Final = """
from hpo.service import optimizer_process
optimizer_process.LEASE_SECONDS = 6.0
from hpo.cli import main
main()
"""
_LACKING: Final = """
from hpo.service import setbacks
from hpo.service.suggestion_queue import SuggestionQueue
setbacks.SETBACK_SECONDS = setbacks.MOST_SECONDS
def fail(self, study, **arguments):
    raise ModuleNotFoundError("No module named 'models'")
SuggestionQueue.step = fail
from hpo.cli import main
main()
"""
"""On a machine that lacks what the studies need; it is not tried again within a test."""
_AUDIT: Final = """
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY, study_id bigint, owner text, old_owner text,
                    was_valid boolean, at timestamptz);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit (study_id, owner, old_owner, was_valid, at) VALUES (
        NEW.id, NEW.generator_owner, OLD.generator_owner,
        COALESCE(OLD.generator_expires_at > clock_timestamp(), false), clock_timestamp());
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER UPDATE OF generator_owner, generation ON study FOR EACH ROW
WHEN (OLD.generator_owner IS DISTINCT FROM NEW.generator_owner OR OLD.generation <> NEW.generation)
EXECUTE FUNCTION audit();
"""


class Fleet:
    """Optimizer processes on one database."""

    def __init__(self, database: Database, url: str, home: Path, stack: ExitStack) -> None:
        self._database = database
        self._url = url
        self._home = home
        self._stack = stack

    def start(self, program: str = _PROGRAM) -> subprocess.Popen[bytes]:
        """Start one more."""
        process = subprocess.Popen(
            python_command(program, "--home", str(self._home), "optimizer"),
            env={**child_environment(), "DATABASE_URL": self._url, "OMP_NUM_THREADS": "1"},
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def shares(self) -> list[int]:
        """Return how many studies each living one has."""
        with self._database.transaction() as connection:
            return sorted(row.studies for row in optimizers.list_alive(connection))


@pytest.fixture
def fleet(database: Database, database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(database, database_url, tmp_path, stack)


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until other processes make `condition` true."""
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS / 0.1)):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError(f"{what} did not happen within {WAIT_SECONDS:g} s")


@pytest.mark.slow
def test_studies_are_shared_by_those_that_live_and_each_has_one_planner_at_a_time(
    database: Database, fleet: Fleet
) -> None:
    with database.transaction() as connection:
        connection.execute(text(_AUDIT))
    made = [create(database, name=f"study-{n:02}", optimizer={"name": "sobol"}) for n in range(STUDIES)]
    killed, stopped, _ = [fleet.start() for _ in range(3)]
    until(lambda: fleet.shares() == [4, 4, 4], "a third of the studies for each")
    _have_each_served(database, made)
    killed.send_signal(signal.SIGKILL)
    until(lambda: fleet.shares() == [6, 6], "the take-over of what a dead one had")
    _have_each_served(database, made)
    fleet.start()
    until(lambda: fleet.shares() == [4, 4, 4], "the share of a new one")
    _have_each_served(database, made)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(WAIT_SECONDS) == 0
    until(lambda: fleet.shares() == [6, 6], "the take-over of what was given back")
    _have_each_served(database, made)
    _check_history(database, dead=f"{os.uname().nodename}:{killed.pid}")
    for study in made:
        numbers = [record.number for record in records(database, study)]
        assert numbers == list(range(len(numbers))), "none lost and none twice"
        configurations = [tuple(record.params.items()) for record in records(database, study)]
        assert len(set(configurations)) == len(configurations)


@pytest.mark.slow
def test_studies_that_fail_in_one_are_served_by_the_other_and_stay_there(database: Database, fleet: Fleet) -> None:
    with database.transaction() as connection:
        connection.execute(text(_AUDIT))
    made = [create(database, name=f"study-{n:02}", optimizer={"name": "sobol"}) for n in range(2)]
    lacking = fleet.start(_LACKING)
    name = f"{os.uname().nodename}:{lacking.pid}"
    said = f"the optimizer cannot propose configurations ({name}): ModuleNotFoundError: No module named 'models'"
    until(lambda: [_degraded(database, study) for study in made] == [said] * 2, "a reason on the studies")
    able = fleet.start()
    until(lambda: fleet.shares() == [0, 2], "that all are served")
    for _ in range(3):
        _have_each_served(database, made)
    assert fleet.shares() == [0, 2]
    assert [_degraded(database, study) for study in made] == [f"{said}, but another one serves it"] * 2
    with database.transaction() as connection:
        changes = text("SELECT owner FROM audit WHERE owner IS NOT NULL ORDER BY id")
        owners = list(connection.execute(changes).scalars())
    # It would have half of them, and give them back at once.
    assert owners == [name, name, f"{os.uname().nodename}:{able.pid}", f"{os.uname().nodename}:{able.pid}"]


def _degraded(database: Database, study: StudyRow) -> str | None:
    with database.transaction() as connection:
        return studies.get_by_id(connection, study.id).degraded


def _have_each_served(database: Database, made: list[StudyRow]) -> None:
    """Run a trial of each study, and wait until each has a new suggestion after its result."""
    before: dict[int, int] = {}
    for study in made:
        until(partial(waiting, database, study), "a suggestion")
        before[study.id] = len(records(database, study))
        finish(database, must_claim(database, study), 0.5)

    def are_all_there() -> bool:
        return all(len(records(database, study)) > before[study.id] for study in made)

    until(are_all_there, "a further suggestion for each")


def _check_history(database: Database, *, dead: str) -> None:
    tenures: dict[int, list[tuple[Any, Any, str]]] = defaultdict(list)
    with database.transaction() as connection:
        changes = connection.execute(text("SELECT * FROM audit ORDER BY id")).all()
        said = connection.execute(
            text(
                "SELECT study_id, actor, created_at FROM event WHERE kind IN ('trial.suggested', 'trial.replaced')"
                " ORDER BY id"
            )
        ).all()
    for study_id in {change.study_id for change in changes}:
        own = [change for change in changes if change.study_id == study_id]
        for change, after in zip(own, [*own[1:], None], strict=True):
            if change.owner is not None:
                tenures[study_id].append((change.at, after and after.at, change.owner))
    assert [change for change in changes if change.owner is not None and change.was_valid] == []
    expired = Counter(change.old_owner for change in changes if change.owner is not None and change.old_owner)
    assert expired[dead] > 0, "what a dead one had was taken once its lease had run out"
    for event in said:
        assert any(
            owner == event.actor and begun <= event.created_at and (ended is None or event.created_at <= ended)
            for begun, ended, owner in tenures[event.study_id]
        ), f"{event.actor} suggested without the lease of study {event.study_id}"
