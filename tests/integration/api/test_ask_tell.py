"""Ask and tell over the real API: leases, decisions, ends, losses, and several askers at one study."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hpo.client import AskedTrial, Client, Study
from hpo.errors import ConflictError, NotFoundError, SetupError, SpecError, StaleLeaseError
from hpo.store import lifecycle
from hpo.trial import Decision

from .service import Service, claim_body

CUSTOM: dict[str, Any] = {
    "name": "own",
    "objectives": [{"metric": "loss", "direction": "minimize"}],
    "task": {"kind": "custom", "metrics": {"loss": "minimize", "size": "minimize"}, "epochs": 9},
    "space": {"x": {"type": "float", "low": -1.0, "high": 1.0}},
    "budget": {"trials": 3},
}


@contextmanager
def _study(service: Service, count: int = 3, **changes: Any) -> Iterator[Study]:
    """Yield an asker of a new study with suggestions."""
    with Client(service.url, service.tokens["admin"]) as client:
        made = client.create_study({**CUSTOM, **changes})
        service.suggest(made["id"], points=[{"x": round(-0.5 + 0.1 * place, 3)} for place in range(count)])
        with Study(client, "own") as study:
            yield study


def _asked(study: Study) -> AskedTrial:
    trial = study.ask(timeout=30)
    assert trial is not None
    return trial


def test_a_loop_of_ask_and_tell_ends_with_the_study(service: Service) -> None:
    with _study(service) as study:
        seen = []
        while (trial := study.ask()) is not None:
            assert trial.config["seed"] >= 0
            seen.append(trial.number)
            study.tell(trial, float(trial.params["x"]) ** 2)
        assert seen == [0, 1, 2]
        assert study.state == "completed"
        found = study.client.trials("own")
        assert [trial["state"] for trial in found] == ["completed"] * 3
        for one in found:
            assert one["metrics"] == one["last_metrics"] == {"loss": float(one["params"]["x"]) ** 2}
        assert study.ask() is None
        workers = {worker["name"]: worker for worker in study.client.workers()}
        assert len(workers) == 1, "one name, since one trial ran at a time"


def test_how_a_trial_ends_by_what_is_told(service: Service) -> None:
    with _study(service, 5, budget={"trials": 5}) as study:
        failed, diverged, stopped, completed, released = (_asked(study) for _ in range(5))
        study.tell(failed, state="failed", message="no such file\nTraceback")
        study.tell(diverged, math.nan)
        assert stopped.report(1, {"loss": 0.5, "size": 3.0}) is Decision.CONTINUE
        study.tell(stopped, state="stopped")
        completed.report(1, 0.4)
        study.tell(completed, {"loss": 0.3})
        with pytest.raises(ConflictError, match="has no result"):
            study.tell(released)
        study.tell(released, state="released")
        found = {trial["number"]: trial for trial in study.client.trials("own")}
        assert (found[failed.number]["failure_kind"], found[failed.number]["failure_message"]) == (
            "error",
            "no such file\nTraceback",
        )
        assert found[diverged.number]["failure_kind"] == "diverged"
        assert found[stopped.number]["metrics"] == {"loss": 0.5, "size": 3.0}
        assert (found[completed.number]["state"], found[completed.number]["metrics"]) == ("completed", {"loss": 0.3})
        assert (found[released.number]["state"], found[released.number]["lost_on"]) == ("suggested", [])
        again = _asked(study)
        assert (again.number, again.attempt) == (released.number, 2)


def test_a_repeated_step_changes_nothing_and_an_impossible_one_is_refused(service: Service) -> None:
    with _study(service) as study:
        trial = _asked(study)
        trial.report(1, 0.5)
        trial.report(1, 0.5)
        with pytest.raises(ConflictError, match="loss is inf"):
            trial.report(2, math.inf)
        with pytest.raises(Exception, match="epoch 10 was reported, but trials of this study have 9"):
            trial.report(10, 0.4)
        assert study.client.trial("own", trial.number)["curve"] == {"1": {"loss": 0.5}}


def test_the_stopping_rule_stops_a_trial_and_what_it_measured_counts(service: Service) -> None:
    rule = {"name": "median", "startup_trials": 2}
    with _study(service, 3, early_stopping=rule) as study:
        for value in (0.1, 0.2):
            good = _asked(study)
            for step in range(1, 10):
                assert good.report(step, value) is Decision.CONTINUE
            study.tell(good)
        bad = _asked(study)
        assert bad.report(1, 9.0) is Decision.STOP
        assert bad.should_stop
        study.tell(bad)
        ended = study.client.trial("own", bad.number)
        assert (ended["state"], ended["metrics"]) == ("stopped", {"loss": 9.0})


def test_a_lost_lease_is_a_clear_error_and_its_result_is_not_taken(service: Service) -> None:
    with _study(service) as study:
        trial, other = _asked(study), _asked(study)
        study.client.cancel_trial("own", other.number)
        assert other.report(1, 0.1) is Decision.ABANDON
        study.tell(other)
        _end_leases(service)
        with service.http("worker") as http:
            body = {**claim_body("thief"), "study": "own", "task_kinds": ["custom"]}
            assert http.post("/v1/leases", json=body).json()["number"] == trial.number, "what had begun comes first"
        study._beat(trial)
        for call in (lambda: trial.report(1, 0.5), lambda: study.tell(trial, 0.5), lambda: trial.report(2, 0.5)):
            with pytest.raises(StaleLeaseError):
                call()


def _end_leases(service: Service) -> None:
    """Let all leases end and be noticed, as if their holders had been silent, with no wait before the next attempt."""
    from sqlalchemy import text

    with service.database.transaction() as connection:
        connection.execute(text("UPDATE trial SET lease_expires_at = clock_timestamp() - interval '1 hour'"
                                " WHERE state = 'running'"))  # fmt: skip
        lifecycle.reap(connection)
        connection.execute(text("UPDATE trial SET not_before = NULL"))


def test_closing_gives_trials_back_without_counting_a_retry(service: Service) -> None:
    with _study(service) as study:
        trial = _asked(study)
        study.close()
        found = study.client.trial("own", trial.number)
        assert (found["state"], found["lost_on"]) == ("suggested", [])


def test_a_pause_of_the_study_pauses_the_trial_which_continues_from_its_checkpoint(service: Service) -> None:
    with _study(service) as study:
        trial = _asked(study)
        study.client.pause_study("own")
        assert trial.report(1, 0.5, checkpoint="runs/one.npz") is Decision.PAUSE
        study.tell(trial)
        with pytest.raises(TimeoutError, match="it is paused"):
            study.ask(timeout=0)
        study.client.resume_study("own")
        again = _asked(study)
        assert (again.number, again.attempt, again.steps_done) == (trial.number, 2, 1)
        assert again.checkpoint == "runs/one.npz"


def test_the_thread_keeps_the_leases_of_silent_trials(service: Service) -> None:
    with _study(service) as study:
        trial = _asked(study)
        study.client.stop_study("own")
        study._beat(trial)
        assert trial.decision is Decision.STOP
        assert trial.should_stop


def test_several_threads_ask_one_study(service: Service) -> None:
    with _study(service, 12, budget={"trials": 12}) as study:
        seen: list[int] = []

        def work() -> None:
            while (trial := study.ask()) is not None:
                seen.append(trial.number)
                study.tell(trial, 0.1)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == list(range(12))
        assert len(study.client.workers()) <= 3


_DYING = """
import os, sys
from hpo.client import Client, Study
study = Study(Client(os.environ["URL"], os.environ["TOKEN"]), "own")
trial = study.ask()
trial.report(1, 0.5)
print(trial.number, flush=True)
sys.stdin.read()
"""


def _signal_while_it_has_a_trial(service: Service, number: signal.Signals) -> int:
    """Send a signal to a program that has asked for a trial and reported once; return its exit status."""
    variables = {**os.environ, "URL": service.url, "TOKEN": service.tokens["worker"], "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, "-c", _DYING], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "0\n"
        program.send_signal(number)
    return program.returncode


def test_the_trial_of_a_program_that_was_killed_is_given_out_again(service: Service) -> None:
    with _study(service, 1, budget={"trials": 1}) as study:
        _signal_while_it_has_a_trial(service, signal.SIGKILL)
        _end_leases(service)
        trial = _asked(study)
        assert (trial.number, trial.attempt, trial.steps_done) == (0, 2, 1)
        study.tell(trial, 0.4)
        assert study.client.trial("own", 0)["lost_on"] != []


def test_a_program_that_gets_sigterm_gives_its_trial_back_at_once(service: Service) -> None:
    with _study(service, 1, budget={"trials": 1}) as study:
        assert _signal_while_it_has_a_trial(service, signal.SIGTERM) == 128 + signal.SIGTERM
        trial = _asked(study)
        assert (trial.number, trial.attempt, trial.steps_done) == (0, 2, 1)
        assert study.client.trial("own", 0)["lost_on"] == [], "no retry is counted"


def test_a_forked_process_has_connections_of_its_own_and_leaves_trials_to_its_parent(service: Service) -> None:
    with _study(service, 3) as study:
        held = _asked(study)
        forked = multiprocessing.get_context("fork").Process(target=_run_one, args=(study,))
        forked.start()
        study.tell(_asked(study), 0.5)
        forked.join()
        assert forked.exitcode == 0
        study.tell(held, 0.5)
        assert [trial["state"] for trial in study.client.trials("own")] == ["completed"] * 3


def _run_one(study: Study) -> None:
    before = study.client._connection._made
    study.tell(_asked(study), 0.5)
    study.close()
    assert study.client._connection._made is not before


def test_only_studies_of_own_functions_can_be_asked(service: Service) -> None:
    service.create()
    with Client(service.url, service.tokens["worker"]) as client:
        with pytest.raises(SetupError, match="hpo-worker"):
            Study(client, "demo")
        with pytest.raises(NotFoundError):
            Study(client, "none")


def test_asking_loads_neither_pydantic_nor_torch() -> None:
    code = "import sys, hpo.client; print(sorted({'pydantic', 'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_wrong_spec_is_named(service: Service) -> None:
    with Client(service.url, service.tokens["admin"]) as client, pytest.raises(SpecError, match="loss"):
        client.create_study({**CUSTOM, "task": {"kind": "custom", "metrics": {"x": "minimize"}}})
