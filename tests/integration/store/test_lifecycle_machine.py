"""The state machine holds, and it has the power to notice when the lifecycle's statements are wrong."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.exc import IntegrityError

from hpo.store import Database
from hpo.store.statements import STATEMENTS

from .machine import LifecycleMachine

# Twice the profile's number: 200 unless a profile asks for more.
MACHINE = settings(
    max_examples=2 * settings().max_examples,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
HUNT = settings(
    max_examples=1000,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

MUTANTS = {
    "report without the attempt": ("report", "AND attempt = :attempt", ""),
    "report without the lease id": ("report", "AND lease_id = CAST(:lease_id AS uuid)", ""),
    "report without a fence": (
        "report",
        "AND attempt = :attempt\n      AND lease_id = CAST(:lease_id AS uuid)\n",
        "",
    ),
    "late report after failure": ("report", "('running', 'suggested')", "('running', 'suggested', 'failed')"),
    "GPU time counted again when a report is repeated": (
        "report",
        "DO NOTHING",
        "DO UPDATE SET created_at = clock_timestamp()",
    ),
    "finish without the attempt": ("finish", "AND attempt = :attempt", ""),
    "finish without the lease id": ("finish", "AND lease_id = CAST(:lease_id AS uuid)", ""),
    "finish without the state": ("finish", "AND state IN ('running', 'suggested')", ""),
    "late finish refused": ("finish", "state IN ('running', 'suggested')", "state = 'running'"),
    "another result confirmed": (
        "accepted",
        "AND metrics IS NOT DISTINCT FROM",
        "AND true OR metrics IS NOT DISTINCT FROM",
    ),
    "release without the lease id": ("release", "AND trial.lease_id = CAST(:lease_id AS uuid)", ""),
    "release keeps the lease": ("release", "lease_id = NULL,\n    lease_expires_at = NULL", "lease_expires_at = NULL"),
    "retries without end": ("reap", "trial.retries < (study.spec #>> '{retry,attempts}')::int", "true"),
    "reaping live leases": ("reap", "AND trial.lease_expires_at < clock_timestamp()", ""),
    "claim without a new attempt": (
        "claim",
        "attempt = trial.attempt + 1",
        "attempt = GREATEST(trial.attempt, 1)",
    ),
    "claim of running trials": ("claim", "('suggested', 'paused')", "('suggested', 'paused', 'running')"),
    "claim from a paused study": ("claim", "AND study.state = 'active'", ""),
    "claim before the backoff is over": ("claim", "trial.not_before <= clock_timestamp()", "true"),
    "claim of held trials": ("claim", "AND NOT trial.held", ""),
    "suggest without the generation": ("suggest", "AND generation = :generation", ""),
    "suggest without the owner": ("suggest", "AND generator_owner = :owner", ""),
    "suggest after the lease of the generator": ("suggest", "AND generator_expires_at > clock_timestamp()", ""),
    "suggest beyond the budget": (
        "suggest",
        "LEAST(:wanted, COALESCE((spec #>> '{budget,trials}')::int - live_trials, :wanted))",
        ":wanted",
    ),
    "replacing what was claimed": ("replace_suggestion", "AND trial.attempt = 0", ""),
    "withdrawing what was claimed": ("withdraw", "AND trial.state = 'suggested' AND trial.attempt = 0", ""),
}

EVERY_TIME = {
    "report without the attempt",
    "report without a fence",
    "late report after failure",
    "finish without the lease id",
    "finish without the state",
    "retries without end",
    "reaping live leases",
    "claim without a new attempt",
    "claim of running trials",
    "suggest without the generation",
    "suggest without the owner",
    "suggest beyond the budget",
}


def machine_of(database: Database) -> type[LifecycleMachine]:
    """Return the machine as Hypothesis wants it: a class that needs no arguments."""

    class OnDatabase(LifecycleMachine):
        def __init__(self) -> None:
            super().__init__(database)

    return OnDatabase


def test_the_lifecycle_agrees_with_its_model(database: Database) -> None:
    run_state_machine_as_test(machine_of(database), settings=MACHINE)


@pytest.mark.parametrize(
    "mutant", [pytest.param(name, marks=() if name in EVERY_TIME else pytest.mark.slow) for name in MUTANTS]
)
def test_the_machine_kills_the_mutant(mutant: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    name, original, replacement = MUTANTS[mutant]
    statement = STATEMENTS[name]
    assert original in statement, "the statement has changed; write the mutant anew"
    monkeypatch.setitem(STATEMENTS, name, statement.replace(original, replacement))
    # The model disagrees, or a CHECK or UNIQUE of the tables does.
    with pytest.raises((AssertionError, IntegrityError)):
        run_state_machine_as_test(machine_of(database), settings=HUNT)
