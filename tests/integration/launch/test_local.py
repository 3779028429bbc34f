"""`hpo launch local`: what becomes of workers, and of their trials, when they or their launcher are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.integration.workers.bench import wait_until

from .conftest import EPOCHS, Gated, ended


def test_a_killed_worker_is_started_again_and_sigterm_has_it_give_its_trial_back(gated: Gated) -> None:
    launcher = gated.launch()
    gated.waits(attempt=1)
    os.kill(launcher.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: len(launcher.worker_pids()) == 2, "a second process")
    assert "cpu-0: ended with the signal SIGKILL; started again in 1 s" in launcher.said
    gated.bench.expire_leases()
    gated.waits(attempt=2)
    assert not (gated.gates / "2-1").exists(), "it continues after the first epoch"
    wait_until(lambda: "cpu-0: trains trial 0 of gated" in launcher.said)

    launcher.process.send_signal(signal.SIGTERM)
    gated.open_when_draining(attempt=2)
    assert ended(launcher) == 0
    trial = gated.bench.trial(gated.study_id)
    assert (trial.state, trial.epochs_done) == ("suggested", 2)
    assert gated.ends() == ["expired", "drained"]
    assert len(launcher.worker_pids()) == 2, "what was asked to end is not started again"


def test_workers_of_a_killed_launcher_end_in_order_and_those_without_work_are_not_started_again(gated: Gated) -> None:
    killed = gated.launch()
    gated.waits(attempt=1)
    (worker,) = killed.worker_pids()
    killed.process.kill()
    gated.open_when_draining(attempt=1)
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the end of the worker")
    assert gated.ends() == ["drained"]

    launcher = gated.launch("--exit-when-idle", "0.2")
    assert ended(launcher) == 0
    trial = gated.bench.trial(gated.study_id)
    assert (trial.state, trial.attempt, trial.epochs_done) == ("completed", 2, EPOCHS)
    assert len(launcher.worker_pids()) == 1
    assert launcher.said.endswith("cpu-0: ended\n")
