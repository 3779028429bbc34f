"""The stored totals of studies: the sums over their trials, whatever folds them and whoever ends trials at one time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sqlalchemy import text

from hpo.service.upkeep import run_upkeep
from hpo.store import Database, lifecycle, totals
from hpo.store.study_row import get
from hpo.trial import FailureKind, TrialState

from .sums import check_totals
from .world import finish, make_study, measurement, must_claim, report, suggest


def _rows(database: Database) -> int:
    with database.transaction() as connection:
        return int(connection.execute(text("SELECT count(*) FROM study_total")).scalar_one())


def test_totals_that_are_folded_while_trials_end_stay_the_sums(database: Database) -> None:
    studies = [make_study(database, name) for name in ("a", "b")]
    leases = []
    for study in studies:
        suggest(database, study, 12)
        leases += [must_claim(database, study, name=f"worker-{n}") for n in range(12)]
    is_over = threading.Event()

    def fold() -> None:
        while not is_over.is_set():
            with database.transaction() as connection:
                totals.fold(connection, most=1)

    with ThreadPoolExecutor(6) as pool:
        folding = [pool.submit(fold) for _ in range(2)]
        ended = list(pool.map(partial(finish, database), leases))
        is_over.set()
        for one in folding:
            one.result()
    assert len(ended) == len(leases)
    with database.transaction() as connection:
        check_totals(connection)
        found = get(connection, "a")
    assert found.counts == {TrialState.COMPLETED: 12}
    assert found.gpu_seconds_spent > 0


def test_upkeep_folds_and_a_trial_that_is_taken_out_takes_its_part_along(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, totals.MOST_ROWS + 2)
    for _ in range(totals.MOST_ROWS + 1):
        lease = must_claim(database)
        report(database, lease, measurement(1, 0.5, gpu_seconds=2.0))
        finish(database, lease)
    assert _rows(database) == totals.MOST_ROWS + 1
    run_upkeep(database)
    assert _rows(database) == 1
    with database.transaction() as connection:
        check_totals(connection)
        lifecycle.discard(connection, lease.trial_id, actor="anna")
        check_totals(connection)
        counts = get(connection, "study").counts
    assert counts == {TrialState.COMPLETED: totals.MOST_ROWS, TrialState.WITHDRAWN: 1, TrialState.SUGGESTED: 1}


def test_failures_that_are_all_taken_out_leave_no_time_behind(database: Database) -> None:
    """Not even what the sum of floats leaves when they are taken away again, which may be less than zero."""
    study = make_study(database)
    suggest(database, study, 3)
    leases = []
    for seconds in (100.1, 200.2, 300.3):
        lease = must_claim(database)
        report(database, lease, measurement(1, 0.5, gpu_seconds=seconds))
        finish(database, lease, "failed", failure_kind=FailureKind.ERROR)
        leases.append(lease)
    with database.transaction() as connection:
        totals.fold(connection, most=1)
        for lease in leases:
            lifecycle.discard(connection, lease.trial_id, actor="anna")
        found = get(connection, "study")
    assert found.counts == {TrialState.WITHDRAWN: 3}
    assert found.gpu_seconds_failed == 0
    assert found.gpu_seconds_spent >= 600
