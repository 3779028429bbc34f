"""Whatever interrupts a trial, its result is that of the run that nothing interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest

from hpo.protocol import ClaimRequest, WorkerInfo
from hpo.store import lifecycle
from hpo.trial import StudyState
from tests.unit.workers.tiny import without_timing
from workers.retrain import TrainingResult

from .bench import EPOCHS, GOOD, Bench, wait_until

WAITING = 3
"""The rung of the rule `curves` at a sixth of the epochs."""


def _assert_equal(bench: Bench, study: int, reference: TrainingResult) -> None:
    trial = bench.trial(study)
    assert trial.state == "completed"
    assert without_timing(trial.metrics) == without_timing(reference.metrics)
    steps = {row.step for row in bench.measurements(trial.id)}
    assert steps == set(range(1, EPOCHS + 1))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_sigkill_loses_at_most_the_running_epoch(bench: Bench, reference: TrainingResult) -> None:
    study = bench.study("killed", [GOOD])
    first = bench.worker("--max-trials", "1")
    wait_until(bench.reached(study, 3))
    orphans = first.children()
    first.signal(signal.SIGKILL)
    first.wait()
    # The training process ends by itself: an orphan never trains on.
    wait_until(lambda: not any(_alive(pid) for pid in orphans), "the orphan's end")
    known = bench.trial(study).epochs_done
    bench.expire_leases()
    second = bench.worker("--max-trials", "1")
    assert second.wait() == 0, second.said
    _assert_equal(bench, study, reference)
    rows = bench.measurements(bench.trial(study).id)
    assert {row.attempt for row in rows} == {1, 2}
    assert min(row.step for row in rows if row.attempt == 2) == known + 1
    assert "resumes after epoch" in second.said


@pytest.mark.parametrize(
    ("checkpoint", "options", "status"), [("readable", (), 0), ("gone", ("--drained-status", "143"), 143)]
)
def test_sigterm_gives_the_trial_back_and_another_machine_completes_it(  # noqa: PLR0917 - three columns of a table
    bench: Bench, reference: TrainingResult, tmp_path: Path, checkpoint: str, options: tuple[str, ...], status: int
) -> None:
    study = bench.study("drained", [GOOD])
    first = bench.worker("--max-trials", "1", *options)
    wait_until(bench.reached(study, 2))
    first.signal(signal.SIGTERM)
    started = time.monotonic()
    assert first.wait() == status, first.said
    assert time.monotonic() - started < 30
    trial = bench.trial(study)
    assert (trial.state, trial.retries) == ("suggested", 0)
    assert Path(trial.checkpoint).is_file()
    if checkpoint == "gone":
        shutil.rmtree(bench.home / "checkpoints")
    # A data directory of its own, from which the checkpoints of the first may be read.
    roots = {"HPO_CHECKPOINT_ROOTS": str(bench.home / "checkpoints")}
    second = bench.worker("--max-trials", "1", home=tmp_path / "other", variables=roots)
    assert second.wait() == 0, second.said
    _assert_equal(bench, study, reference)
    attempts = [row.attempt for row in bench.measurements(trial.id) if row.step == 1]
    assert attempts == ([1] if checkpoint == "readable" else [1, 2])
    assert ("the trial starts from the beginning" in second.said) == (checkpoint == "gone")


def test_a_second_sigterm_ends_the_worker_at_once(bench: Bench) -> None:
    study = bench.study("twice", [GOOD], task={"epochs": 5000})
    worker = bench.worker("--max-trials", "1")
    wait_until(bench.reached(study, 1))
    children = worker.children()
    for pid in children:
        os.kill(pid, signal.SIGSTOP)  # hangs: it will not write its checkpoint
    worker.signal(signal.SIGTERM)
    wait_until(lambda: "asked to stop" in worker.said)

    def again() -> bool:  # those that come at once are the first one, sent on by a launcher
        worker.signal(signal.SIGTERM)
        return worker.process.poll() is not None

    wait_until(again)
    assert worker.wait() == 128 + signal.SIGTERM
    wait_until(lambda: not any(_alive(pid) for pid in children))


def test_pause_and_resume(bench: Bench, reference: TrainingResult) -> None:
    study = bench.study("paused", [GOOD])
    worker = bench.worker("--max-trials", "2")
    wait_until(bench.reached(study, 2))
    bench.set_state("paused", StudyState.PAUSED)
    wait_until(bench.is_in(study, "paused"))
    trial = bench.trial(study)
    assert (trial.retries, trial.epochs_done < EPOCHS) == (0, True)
    assert Path(trial.checkpoint).is_file()
    bench.set_state("paused", StudyState.ACTIVE)
    assert worker.wait() == 0, worker.said
    _assert_equal(bench, study, reference)
    assert len(bench.measurements(trial.id)) == EPOCHS


def test_stop_keeps_the_result_so_far(bench: Bench) -> None:
    study = bench.study("stopped", [GOOD, GOOD], task={"epochs": 5000})
    worker = bench.worker("--max-trials", "1")
    wait_until(bench.reached(study, 2))
    bench.set_state("stopped", StudyState.STOPPED)
    assert worker.wait() == 0, worker.said
    trial, other = bench.trials(study)
    assert (trial.state, other.state) == ("stopped", "withdrawn")
    assert trial.metrics == bench.measurements(trial.id)[-1].metrics
    assert Path(trial.checkpoint).name.startswith("final-")
    assert Path(trial.checkpoint).is_file()


def test_a_cancelled_trial_is_dropped_and_the_next_one_begins(bench: Bench) -> None:
    study = bench.study("cancelled", [GOOD, {**GOOD, "model.beta_inv": 3}], task={"epochs": 5000})
    worker = bench.worker("--max-trials", "2")
    wait_until(bench.reached(study, 1))
    with bench.database.transaction() as connection:
        lifecycle.cancel(connection, bench.trial(study).id, actor="test")
    assert worker.wait() == 0, worker.said
    first, second = bench.trials(study)
    assert (first.state, first.failure_kind) == ("stopped", None)
    assert second.failure_kind == "invalid"


def test_a_trial_that_somebody_else_owns_now_is_dropped(bench: Bench) -> None:
    study = bench.study("stolen", [GOOD, {**GOOD, "model.beta_inv": 3}], task={"epochs": 5000})
    worker = bench.worker("--max-trials", "2")
    wait_until(bench.reached(study, 1))
    children = worker.children()
    worker.signal(signal.SIGSTOP)  # the worker hangs beyond its lease
    bench.expire_leases()
    thief = WorkerInfo(name="thief", host="h", pid=1, device="cpu")
    with bench.database.transaction() as connection:
        lease = lifecycle.claim(connection, ClaimRequest(worker=thief, lease_id=uuid4()), lease_seconds=600)
    assert lease is not None
    assert lease.attempt == 2
    worker.signal(signal.SIGCONT)
    assert worker.wait() == 0, worker.said
    assert not any(_alive(pid) for pid in children)
    first, second = bench.trials(study)
    assert (first.state, first.attempt, first.lease_worker) == ("running", 2, "thief")
    assert second.failure_kind == "invalid"
    assert "dropped" in worker.said


def test_a_trial_whose_process_is_killed_is_tried_again_and_a_poison_trial_is_given_up(bench: Bench) -> None:
    study = bench.study("poison", [GOOD, {**GOOD, "model.beta_inv": 3}], task={"epochs": 5000}, retry={"attempts": 1})
    worker = bench.worker("--max-trials", "3")
    wait_until(bench.reached(study, 1))
    os.kill(_at_work(worker.children()), signal.SIGKILL)
    wait_until(lambda: bench.trials(study)[1].state == "failed", "the next trial")
    trial = bench.trial(study)
    assert (trial.state, trial.retries) == ("suggested", 1)
    done = trial.epochs_done
    bench.skip_backoff()
    wait_until(bench.reached(study, done + 1))
    os.kill(_at_work(worker.children()), signal.SIGKILL)
    assert worker.wait() == 0, worker.said
    trial = bench.trial(study)
    assert (trial.state, trial.failure_kind, trial.attempt) == ("failed", "lost", 2)
    assert "killed by SIGKILL" in trial.failure_message


def _at_work(children: list[int]) -> int:
    """Return the training process: the one whose output is a log of an attempt."""
    return next(pid for pid in children if "attempt-" in str(Path(f"/proc/{pid}/fd/1").readlink()))


@pytest.mark.slow
def test_a_trial_that_waits_at_a_rung_is_promoted_and_completes(bench: Bench, reference: TrainingResult) -> None:
    """Its worker takes the others first; what it ends with is what it would have reached in one go."""
    points = [GOOD, {**GOOD, "lr": 0.01}, {**GOOD, "lr": 0.005}]
    rule = {"name": "curves", "pause": True, "startup_trials": len(points)}  # none is stopped for good
    study = bench.study("promoted", points, early_stopping=rule)
    worker = bench.worker("--max-trials", "5")  # two of the three wait
    wait_until(bench.is_in(study, "paused"))
    assert bench.trial(study).held
    assert worker.wait() == 0, worker.said
    _assert_equal(bench, study, reference)
    first, second, _ = (bench.measurements(trial.id) for trial in bench.trials(study))
    assert [row.attempt for row in first] == [1] * WAITING + [2] * (EPOCHS - WAITING)
    assert first[WAITING - 1].created_at < second[0].created_at < first[WAITING].created_at
    assert {trial.state for trial in bench.trials(study)} == {"completed"}
