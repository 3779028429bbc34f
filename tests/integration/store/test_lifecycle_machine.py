"""The state machine holds, and it has the power to notice when the lifecycle's statements are wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.exc import IntegrityError

from hpo.store import Database
from hpo.store.statements import STATEMENTS

from .machine import LifecycleMachine, given_back, race, stopped

# Three times the profile's number: 90 unless a profile asks for more.
MACHINE = settings(
    max_examples=3 * settings().max_examples,
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
    "claim again with a lease id whose trial was given back": (
        "claim",
        "FROM attempt WHERE lease_id = CAST(:lease_id AS uuid)",
        "FROM attempt WHERE false",
    ),
    "lease ids that are forgotten": (
        "claim",
        "CAST(:lease_id AS uuid), study.gpus",
        "NULL, study.gpus",
    ),
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
    "suggest after the search": ("suggest", "AND search_ended_at IS NULL", ""),
    "replacing what is trained again": ("replace_suggestion", "AND trial.replicate_of IS NULL", ""),
    "claim of the search after its end": (
        "claim",
        "AND (study.search_ended_at IS NULL OR trial.replicate_of IS NOT NULL)",
        "",
    ),
    "withdrawing finalists with the search": (
        "withdraw",
        "AND (trial.replicate_of IS NULL OR NOT place.is_race)",
        "",
    ),
    "finalists withdrawn from the budget of the search": (
        "withdraw",
        "FROM gone WHERE replicate_of IS NULL",
        "FROM gone",
    ),
    "closing finalists with the search": ("close", "AND (trial.replicate_of IS NULL OR NOT ended.is_race)", ""),
    "a trial that is not told of the end of the search": (
        "report",
        "WHEN study.search_ended_at IS NOT NULL AND trial.replicate_of IS NULL THEN 'stopped'",
        "",
    ),
    "a further training of what nobody has claimed": (
        "replicate",
        "AND (asked.attempt > 0 OR asked.origin IS NOT NULL)",
        "",
    ),
    "taking out what has not ended": ("discard", "AND trial.state IN ('completed', 'stopped', 'failed')", ""),
    "a trial that is taken out and keeps its place in the budget": (
        "discard",
        "SET live_trials = study.live_trials - 1",
        "SET live_trials = study.live_trials",
    ),
    "a further training of a study that was stopped": ("replicate", "AND state IN ('active', 'paused')", ""),
    "two further trainings from the same trials": (
        "replicate",
        "AND next_number = COALESCE(CAST(:next_number AS int), next_number)",
        "",
    ),
    "a further training that counts against the budget": (
        "replicate",
        "SET next_number = study.next_number + 1",
        "SET next_number = study.next_number + 1, live_trials = study.live_trials + 1",
    ),
    "a further training of a further training": (
        "replicate",
        "COALESCE(asked.replicate_of, asked.number)",
        "asked.number",
    ),
}

OPENINGS = {
    "claim of the search after its end": race,
    "closing finalists with the search": race,
    "withdrawing finalists with the search": race,
    "a trial that is not told of the end of the search": race,
    "suggest after the search": race,
    "replacing what was claimed": given_back,
    "a further training of a study that was stopped": stopped,
}
"""Where the hunt begins, for what random steps alone reach too seldom."""


def machine_of(database: Database, **options: Callable[[LifecycleMachine], None]) -> type[LifecycleMachine]:
    """Return the machine as Hypothesis wants it: a class that needs no arguments."""

    class OnDatabase(LifecycleMachine):
        def __init__(self) -> None:
            super().__init__(database, **options)

    return OnDatabase


def test_the_lifecycle_agrees_with_its_model(database: Database) -> None:
    run_state_machine_as_test(machine_of(database), settings=MACHINE)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_statement_still_has_what_the_mutant_changes(mutant: str) -> None:
    """Else a changed statement shows first in the slow tests."""
    name, original, replacement = MUTANTS[mutant]
    assert original in STATEMENTS[name]
    assert original != replacement


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_kills_the_mutant(mutant: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    name, original, replacement = MUTANTS[mutant]
    monkeypatch.setitem(STATEMENTS, name, STATEMENTS[name].replace(original, replacement))
    opening = {"opening": OPENINGS[mutant]} if mutant in OPENINGS else {}
    # The model disagrees, or a CHECK or UNIQUE of the tables does.
    with pytest.raises((AssertionError, IntegrityError)):
        run_state_machine_as_test(machine_of(database, **opening), settings=HUNT)
