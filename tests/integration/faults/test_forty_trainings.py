"""As `test_forty_trials`, with real trainings: workers and their training processes, of which one worker falls sick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Row, text

from hpo.store import lifecycle, quarantine_times
from hpo.trial import Fault
from tests.unit.workers.tiny import without_timing

from ..workers.bench import GOOD, Bench, wait_until
from .test_sick_machines import SHORT, row, sick

TRIALS = 40
POINTS = [{**GOOD, "lr": 10 ** (-3 + 2 * place / TRIALS)} for place in range(TRIALS)]
MINUTES = 60.0


def trained(bench: Bench, name: str, fleet: dict[str, dict[str, str]]) -> Sequence[Row[Any]]:
    """Return the trials of a new study, after workers of these names and environments have trained all of it."""
    study = bench.study(name, POINTS, task=SHORT)
    workers = [
        bench.worker("--name", worker, "--study", name, home=bench.home / name / worker, variables=variables)
        for worker, variables in fleet.items()
    ]
    wait_until(lambda: all(trial.finished_at for trial in bench.trials(study)), "the end", seconds=20 * MINUTES)
    for worker in workers:
        worker.process.terminate()
        assert worker.wait() == 0, worker.said
    return bench.trials(study)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_study_with_a_worker_that_falls_sick_equals_one_without_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_SECONDS", 0.0)
    # On a slow machine its time would be over before the study ends, and it would try a trial.
    monkeypatch.setattr(quarantine_times, "FIRST_SECONDS", quarantine_times.LONGEST_SECONDS)
    ecc = "RuntimeError('CUDA error: uncorrectable ECC error encountered')"
    compared = trained(bench, "two", {"a": {}, "b": {}})
    trials = trained(bench, "three", {"sick": sick(SICK_TRAINING=ecc, SICK_FROM="3"), "c": {}, "d": {}})

    assert [(trial.state, trial.retries) for trial in trials] == [("completed", 0)] * TRIALS
    for trial, other in zip(trials, compared, strict=True):
        assert without_timing(trial.metrics) == without_timing(other.metrics), trial.number
    query = "SELECT count(*) FILTER (WHERE fault = 'device'), count(*) FILTER (WHERE fault IS NULL) FROM attempt "
    with bench.database.transaction() as connection:
        counted = connection.execute(text(query + "WHERE worker = 'sick'")).one()
    assert tuple(counted) == (2, 2), "two trials trained, two given back, and then it got no more"
    seen = row(bench)
    assert (seen.fault, seen.quarantined_at is not None) == (Fault.DEVICE, True)
