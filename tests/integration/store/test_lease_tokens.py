"""A lease is of no use with another token than the one that claimed, in any statement; and each has its own test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, text

from hpo.errors import StaleLeaseError
from hpo.protocol import ClaimRequest, FinishRequest, Lease, LogRequest, ReleaseRequest, ReportRequest
from hpo.store import Database, lifecycle, logs, tokens, workers
from hpo.store.statements import STATEMENTS
from hpo.trial import FailureKind

from .world import make_study, suggest, worker

OWNER, THIEF = 1, 2
CONDITION: Final = "(lease_token IS NULL OR lease_token = CAST(:token AS bigint))"
GIB: Final = 2**30
Call = Callable[[Connection, Lease, int], object]


def _claim(connection: Connection, lease_id: UUID, token: int) -> Lease | None:
    request = ClaimRequest(worker=worker(memory_bytes=24 * GIB), lease_id=lease_id)
    return lifecycle.claim(connection, request, lease_seconds=60, token=token)


def _fence(lease: Lease) -> dict[str, object]:
    return {"attempt": lease.attempt, "lease_id": lease.lease_id}


def _claim_again(connection: Connection, lease: Lease, token: int) -> object:
    return _claim(connection, lease.lease_id, token)


def _report(connection: Connection, lease: Lease, token: int) -> object:
    return lifecycle.report(connection, lease.trial_id, ReportRequest.model_validate(_fence(lease)), token=token)


def _finish(connection: Connection, lease: Lease, token: int) -> object:
    request = FinishRequest.model_validate({**_fence(lease), "outcome": "completed", "metrics": {"val_top1": 0.5}})
    return lifecycle.finish(connection, lease.trial_id, request, token=token)


def _finish_again(connection: Connection, lease: Lease, token: int) -> object:
    _finish(connection, lease, OWNER)
    return _finish(connection, lease, token)


def _does_not_fit(connection: Connection, lease: Lease, token: int) -> object:
    workers.seen(connection, worker("large", memory_bytes=48 * GIB))
    body = {**_fence(lease), "outcome": "failed", "failure_kind": FailureKind.OOM, "failure_message": "did not fit"}
    return lifecycle.finish(connection, lease.trial_id, FinishRequest.model_validate(body), token=token)


def _release(connection: Connection, lease: Lease, token: int) -> None:
    request = ReleaseRequest.model_validate({**_fence(lease), "reason": "drained"})
    lifecycle.release(connection, lease.trial_id, request, token=token)


def _log(connection: Connection, lease: Lease, token: int) -> None:
    request = LogRequest.model_validate({**_fence(lease), "start": 0, "stop": 1, "text": "x"})
    logs.append(connection, lease.trial_id, request, token=token)


CALLS: Final[dict[str, Call]] = {
    "reclaim": _claim_again,
    "report": _report,
    "finish": _finish,
    "accepted": _finish_again,
    "reroute": _does_not_fit,
    "release": _release,
}
"""What to call so that a statement decides."""


def _is_accepted(database: Database, call: Call, token: int) -> bool:
    """Return whether a call about a lease of OWNER succeeds with a token; nothing of it stays."""
    suggest(database, make_study(database))
    with database.transaction() as connection:
        for name in ("owner", "thief"):
            tokens.create(connection, name=name, scopes=["worker"], key=b"a key for tests, at least 16 bytes")
        assert sorted(row.id for row in tokens.list_all(connection)) == [OWNER, THIEF]
        lease = _claim(connection, uuid4(), OWNER)
        assert lease is not None
        try:
            call(connection, lease, token)
        except StaleLeaseError:
            return False
        return True


@pytest.mark.parametrize("call", [*CALLS.values(), _log])
@pytest.mark.parametrize("token", [OWNER, THIEF])
def test_only_the_token_that_claimed_may_act(database: Database, call: Call, token: int) -> None:
    assert _is_accepted(database, call, token) is (token == OWNER)


def test_every_statement_that_compares_lease_ids_compares_tokens() -> None:
    comparing = {name for name, sql in STATEMENTS.items() if "lease_id = CAST(:lease_id AS uuid)" in sql}
    exempt = {"claim", "used", "standing"}  # one writes it, the others tell what an id is good for and change nothing
    assert comparing - exempt == set(CALLS) == {name for name, sql in STATEMENTS.items() if _bound(sql)}


def _bound(sql: str) -> bool:
    return CONDITION in sql.replace("trial.lease_token", "lease_token")


@pytest.mark.parametrize("statement", CALLS)
def test_without_its_condition_the_statement_would_serve_a_thief(
    statement: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = STATEMENTS[statement].replace("trial.lease_token", "lease_token")
    monkeypatch.setitem(STATEMENTS, statement, sql.replace(CONDITION, "true"))
    assert _is_accepted(database, CALLS[statement], THIEF)


def test_without_its_condition_the_log_would_take_from_a_thief(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_OWNER", text(str(logs._OWNER).replace(CONDITION, "true")))
    assert _is_accepted(database, _log, THIEF)
