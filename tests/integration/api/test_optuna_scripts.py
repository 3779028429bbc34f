"""Scripts written for Optuna, run on the service; Optuna itself is the oracle of what a script sees."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import optuna
import pytest

import hpo.optuna
from hpo.client import Client
from hpo.errors import ConflictError, NotFoundError, SetupError, StudyExistsError
from hpo.optuna.suggested import Recording, categorical_parameter, float_parameter, int_parameter
from hpo.store import Database

from .service import Service, serving

SCRIPT = """
import warnings
import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

X, y = load_digits(n_class=4, return_X_y=True)
X_train, X_valid, y_train, y_valid = train_test_split(X / 16, y, random_state=0)

def objective(trial):
    model = SGDClassifier(
        alpha=trial.suggest_float("alpha", 1e-6, 1e2, log=True),
        penalty=trial.suggest_categorical("penalty", ["l2", "l1"]),
        eta0=trial.suggest_float("eta0", 1e-3, 1.0, log=True),
        learning_rate=trial.suggest_categorical("learning_rate", ["constant"]),
        random_state=trial.suggest_int("seed_of_model", 3, 3),
    )
    for step in range(5):
        model.partial_fit(X_train, y_train, classes=[0, 1, 2, 3])
        accuracy = model.score(X_valid, y_valid)
        trial.report(accuracy, step)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return accuracy

study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=5))
study.optimize(objective, n_trials=12)
"""
MOVED = {
    "import optuna\n": "import hpo.optuna as optuna\n",
    ", pruner=optuna.pruners.MedianPruner(n_startup_trials=5))": ", storage=storage, steps=5)",
}


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    """A service without an optimizer: points of Sobol's sequence stand in for it at once."""
    with serving(database, fallback_seconds=0.0) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.tokens["admin"]) as found:
        yield found


def _create(client: Client, **changes: Any) -> hpo.optuna.Study:
    return hpo.optuna.create_study(storage=client, **changes)


def test_a_script_of_scikit_learn_sees_what_it_sees_in_optuna(client: Client) -> None:
    moved = SCRIPT
    for line, other in MOVED.items():
        assert moved.count(line) == 1
        moved = moved.replace(line, other)
    ours: dict[str, Any] = {"storage": client}
    exec(moved, ours)  # noqa: S102 - a script of a person's
    study = ours["study"]
    trials = study.trials
    assert len(trials) == 12
    assert study.client.study(study.study_name)["state"] == "completed", "`n_trials` is the budget of the study"

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    theirs: dict[str, Any] = {}
    exec(SCRIPT.replace("study.optimize(objective, n_trials=12)", ""), theirs)  # noqa: S102 - ours
    oracle = theirs["study"]
    for trial in trials:
        oracle.enqueue_trial({**trial.params, "learning_rate": "constant", "seed_of_model": 3})
    oracle.optimize(theirs["objective"], n_trials=12)
    assert [trial.state.name for trial in trials] == [trial.state.name for trial in oracle.trials]
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}, "both occur"
    for trial, other in zip(trials, oracle.trials, strict=True):
        assert trial.intermediate_values == other.intermediate_values
        assert trial.value == other.value
    assert study.best_params == study.best_trial.params
    assert study.best_trial.state.name == "COMPLETE"
    table, other_table = study.trials_dataframe(), oracle.trials_dataframe()
    assert list(table["state"]) == list(other_table["state"])
    shared = {"number", "value", "datetime_start", "datetime_complete", "duration", "params_alpha", "state"}
    assert shared <= set(table.columns) & set(other_table.columns)


def test_the_first_run_shows_the_space_and_is_a_trial_itself(client: Client) -> None:
    runs: list[dict[str, Any]] = []

    def objective(trial: hpo.optuna.Trial) -> float:
        x = trial.suggest_float("x", -10.0, 10.0)
        n = trial.suggest_int("n", 1, 9, step=2)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        trial.set_user_attr("run", len(runs))
        runs.append(dict(trial.params))
        assert trial.params == {"x": x, "n": n, "kind": kind}
        return x * x + n

    seen: list[int] = []
    study = _create(client)
    study.enqueue_trial({"x": 2.0, "n": 3})
    study.optimize(objective, n_trials=4, callbacks=[lambda study, trial: seen.append(trial.number)])
    assert len(runs) == len(study.trials) == 4, "no run of the objective is for nothing"
    assert seen == [0, 1, 2, 3]
    assert runs[0] == {"x": 2.0, "n": 3, "kind": "a"}
    assert [trial.params for trial in study.trials] == runs
    assert [trial.user_attrs for trial in study.trials] == [{"run": place} for place in range(4)]
    assert study.trials[0].value == 7.0
    assert client.export(study.study_name, trial=1)["environment"]["user_attrs"] == {"run": 1}
    study.optimize(objective, n_trials=2)
    assert len(study.trials) == 6, "a study that has ended goes on"


def test_failures_as_in_optuna(client: Client) -> None:
    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        if trial.number == 1:
            raise ValueError("odd")
        if trial.number == 2:
            return math.nan
        if trial.number == 3:
            raise optuna.TrialPruned
        return float(x)

    study = _create(client)
    study.optimize(objective, n_trials=5, catch=ValueError)
    oracle = optuna.create_study()
    oracle.optimize(objective, n_trials=5, catch=ValueError)
    ours, theirs = ([trial.state.name for trial in one.trials] for one in (study, oracle))
    # A trial that is pruned before its first report has no result here.
    assert [state if state != "PRUNED" else "FAIL" for state in theirs] == ours
    failed = client.trial(study.study_name, 1)
    assert str(failed["failure_message"]).startswith("ValueError: odd\nTraceback")
    assert client.trial(study.study_name, 2)["failure_kind"] == "diverged"

    def wrong(trial: Any) -> float:
        trial.suggest_float("x", 0.0, 1.0)
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        study.optimize(wrong, n_trials=3)
    assert [trial.state.name for trial in study.trials[5:]][:1] == ["FAIL"]


def test_a_space_that_changes_is_refused_with_what_to_do(client: Client) -> None:
    def conditional(trial: hpo.optuna.Trial) -> float:
        if trial.number:
            return trial.suggest_float("later", 0.0, 1.0)
        return trial.suggest_float("x", 0.0, 1.0)

    with pytest.raises(SetupError, match=r"'later' is not in the space of the study.*'when'"):
        _create(client).optimize(conditional, n_trials=3)

    def changed(trial: hpo.optuna.Trial) -> float:
        return trial.suggest_float("x", 0.0, 1.0 + trial.number)

    with pytest.raises(SetupError, match=r"ranges cannot change within a study"):
        _create(client).optimize(changed, n_trials=3)
    with pytest.raises(SetupError, match="nothing to search"):
        _create(client).optimize(lambda trial: 1.0, n_trials=3)


def test_a_declared_space_may_have_conditions(client: Client) -> None:
    space = {
        "model": {"type": "categorical", "choices": ["svm", "forest"]},
        "depth": {"type": "int", "low": 1, "high": 9, "when": {"model": ["forest"]}},
    }

    def objective(trial: hpo.optuna.Trial) -> float:
        if trial.suggest_categorical("model", ["svm", "forest"]) == "forest":
            return float(trial.suggest_int("depth", 1, 9))
        return 5.0

    study = _create(client, space=space, budget={"trials": 6}, direction="maximize")
    study.optimize(objective)
    assert len(study.trials) == 6
    assert all(("depth" in trial.params) == (trial.params["model"] == "forest") for trial in study.trials)
    study = _create(client, space=space)
    trial = study.ask()
    assert study.tell(trial, 3.0).value == 3.0


def test_several_threads_and_programs_share_one_study(client: Client) -> None:
    running, together = threading.Barrier(2, timeout=30), []

    def objective(trial: hpo.optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        if trial.number in (1, 2):
            together.append(running.wait())
        return x

    study = _create(client, study_name="shared", budget={"trials": 7})
    study.optimize(objective, n_trials=5, n_jobs=2)
    assert len(together) == 2
    assert len(study.trials) == 5
    other = _create(client, study_name="shared", load_if_exists=True)
    other.optimize(objective)
    assert len(study.trials) == 7
    with pytest.raises(StudyExistsError, match="load_if_exists"):
        _create(client, study_name="shared")


def test_stopping_from_a_callback_and_by_time(client: Client) -> None:
    study = _create(client)
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), callbacks=[lambda study, _: study.stop()])
    assert len(study.trials) == 1
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), timeout=0.0)
    assert [trial.state.name for trial in study.get_trials(states=[hpo.optuna.TrialState.COMPLETE])] == ["COMPLETE"]


def test_what_is_not_ours_is_refused_with_what_to_write(client: Client) -> None:
    with pytest.raises(SetupError, match=r"sampler: the service has its own.*'optimizer'"):
        _create(client, sampler=optuna.samplers.TPESampler())
    with pytest.raises(SetupError, match="not the address of a service"):
        hpo.optuna.create_study(storage="sqlite:///x.db")
    with pytest.raises(ConflictError, match="create_study"):
        _create(client).ask()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (float_parameter(0.0, 1.0, step=0.3, log=False), optuna.distributions.FloatDistribution(0.0, 0.9, step=0.3)),
        (float_parameter(1e-5, 1.0, step=None, log=True), optuna.distributions.FloatDistribution(1e-5, 1.0, log=True)),
        (int_parameter(1, 10, step=4, log=False), optuna.distributions.IntDistribution(1, 9, step=4)),
        (int_parameter(1, 1000, step=1, log=True), optuna.distributions.IntDistribution(1, 1000, log=True)),
    ],
)
def test_ranges_end_where_optunas_end(ours: dict[str, Any], theirs: Any) -> None:
    assert (ours["low"], ours["high"]) == (theirs.low, theirs.high)
    value = Recording().suggest("x", ours)
    assert theirs._contains(theirs.to_internal_repr(value))


def test_choices_that_a_study_cannot_keep_are_named() -> None:
    with pytest.raises(SetupError, match="None is a NoneType"):
        categorical_parameter("x", [None, 1])
    assert categorical_parameter("x", ["a"]) == {"fixed": "a"}


def test_a_first_run_that_raises_says_why_and_leaves_no_study_of_half_a_space(client: Client) -> None:
    def early(trial: hpo.optuna.Trial) -> float:
        raise ImportError("no such module")

    def between(trial: hpo.optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        if len(raised) < 1:
            raised.append(1)
            raise ValueError("a mistake")
        return x + trial.suggest_float("y", 0.0, 1.0)

    def old(trial: Any) -> float:
        return float(trial.suggest_uniform("x", 0.0, 1.0))

    raised: list[int] = []
    study = _create(client)
    with pytest.raises(ImportError, match="no such module"):
        study.optimize(early, n_trials=2)
    with pytest.raises(AttributeError, match=r"write suggest_float\(name, low, high\)"):
        study.optimize(old, n_trials=2)
    with pytest.raises(ValueError, match="a mistake"):
        study.optimize(between, n_trials=2)
    assert client.studies() == []
    assert study.trials == study.best_trials == []
    assert study.trials_dataframe().empty
    with pytest.raises(NotFoundError, match="no trial yet"):
        _ = study.best_value
    study.optimize(between, n_trials=2)
    assert [set(trial.params) for trial in study.trials] == [{"x", "y"}] * 2


def test_attributes_that_are_no_json_are_refused_where_they_are_set_and_the_trial_is_given_back(client: Client) -> None:
    def objective(trial: hpo.optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        trial.set_user_attr("kept", (1, "a"))
        if trial.number:
            trial.set_user_attr("array", trial)
        return x

    study = _create(client)
    with pytest.raises(SetupError, match=r"set_user_attr\('array'\): .* cannot be kept as JSON"):
        study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "WAITING"]
    assert study.trials[0].user_attrs == {"kept": [1, "a"]}
    large = hpo.optuna.Trial(None)
    with pytest.raises(SetupError, match="60 KiB"):
        large.set_user_attr("text", "x" * 70_000)


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_a_call_that_waits_for_a_trial_ends_with_its_time_and_with_ctrl_c(client: Client) -> None:
    study = _create(client, space={"x": {"type": "float", "low": 0.0, "high": 1.0}}, budget={"trials": 1})
    held = study.ask()
    other = hpo.optuna.load_study(study_name=study.study_name, storage=client)
    other.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), timeout=0.1)
    assert [trial.state.name for trial in other.trials] == ["RUNNING"], "nobody else gets it, and the call has ended"
    study.tell(held, 1.0)

    entered = threading.Event()

    def objective(trial: hpo.optuna.Trial) -> float:
        if not entered.is_set():
            entered.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return trial.suggest_float("x", 0.0, 1.0)

    study = _create(client, space={"x": {"type": "float", "low": 0.0, "high": 1.0}}, budget={"trials": 40})
    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_jobs=2)
    for thread in threading.enumerate():
        if thread.name.startswith("trials of "):
            thread.join()
    assert len(study.trials) < 20, "no further trial begins"


_WAITING = """
import os, threading
import hpo.optuna
from hpo.client import Client

def objective(trial):
    trial.suggest_float("x", 0.0, 1.0)
    print(trial.number, flush=True)
    threading.Event().wait()

study = hpo.optuna.load_study(study_name="waiting", storage=Client(os.environ["URL"], os.environ["TOKEN"]))
study.optimize(objective, n_jobs=2)
"""


def test_a_program_that_gets_sigterm_waits_for_no_objective(service: Service, client: Client) -> None:
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
    study = _create(client, study_name="waiting", space=space, budget={"trials": 2})
    variables = {**os.environ, "URL": service.url, "TOKEN": service.tokens["admin"]}
    with subprocess.Popen(
        [sys.executable, "-c", _WAITING], env=variables, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert {program.stdout.readline(), program.stdout.readline()} == {"0\n", "1\n"}
            program.terminate()
            assert program.wait(60) == 128 + signal.SIGTERM
        finally:
            program.kill()
    assert {trial.state.name for trial in study.trials} == {"WAITING"}
    assert [client.trial("waiting", number)["lost_on"] for number in (0, 1)] == [[], []], "no retry is counted"


def test_parts_of_optuna_that_are_not_here_say_what_to_write() -> None:
    with pytest.raises(AttributeError, match=r"create_study\(sampler="):
        _ = hpo.optuna.samplers
    with pytest.raises(AttributeError, match="from-optuna"):
        _ = hpo.optuna.copy_study
    assert hpo.optuna.trial.TrialState is hpo.optuna.TrialState
