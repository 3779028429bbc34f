"""`hpo study import`: files that Optuna, Ax and others have written become trials of a study, once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hpo.store import consistency, studies, trials
from hpo.trial import TrialRecord, TrialState

from ..api.service import Service, claim_body, measured
from .conftest import Command

RANGES = {"lr": (1e-4, 0.3), "dropout": (0.0, 0.8)}


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with service.http() as client:
        yield client


def _records(service: Service, name: str = "demo") -> list[TrialRecord]:
    with service.database.transaction() as connection:
        assert list(consistency.problems(connection)) == []
        return trials.records(connection, studies.id_of(connection, name))


def _searched(storage: Any, *, first_step: int = 1) -> optuna.Study:
    """Return a study of Optuna with 6 trials: 0, 3 and 5 complete, 1 pruned, 2 failed, 4 running."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, study_name="sweep", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for number in range(6):
        trial = study.ask()
        for name, (low, high) in RANGES.items():
            trial.suggest_float(name, low, high)
        if number == 4:
            continue
        for step in range(3):
            trial.report(0.1 * step + 0.01 * number, first_step + step)
        trial.set_user_attr("latency_ms", 10.0 + number)
        states = {1: optuna.trial.TrialState.PRUNED, 2: optuna.trial.TrialState.FAIL}
        if number in states:
            study.tell(trial, state=states[number])
        else:
            study.tell(trial, 0.5 + 0.01 * number)
    return study


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_an_optuna_study_becomes_trials_once(service: Service, hpo: Command, tmp_path: Path, kind: str) -> None:
    service.create(
        constraints=["latency_ms <= 100"], budget={"trials": 3, "max_failed": 1, "target": {"val_top1": 0.5}}
    )
    file = tmp_path / "old.db"
    storage = f"sqlite:///{file}" if kind == "sqlite" else JournalStorage(JournalFileBackend(str(file)))
    theirs = _searched(storage, first_step=0)
    before = file.read_bytes()
    tried = hpo(service, "study", "import", "demo", file, "--dry-run")
    assert (tried.code, "would import 5 of 6 trials" in tried.out) == (0, True), tried
    assert _records(service) == []
    said = hpo(service, "study", "import", "demo", file)
    assert said.code == 0, said
    for part in (
        "5 of 6 trials",
        "3 completed, 1 stopped, 1 failed",
        "as trials 0 to 4",
        "1: it has not ended",
        "step 0",
    ):
        assert part in said.out
    assert file.read_bytes() == before
    found = _records(service)
    ended = [trial for trial in theirs.get_trials() if trial.state.is_finished()]
    for record, trial in zip(found, ended, strict=True):
        assert dict(record.params) == trial.params
        assert record.generator == "imported"
        assert record.origin is not None
        assert (record.origin["trial"], record.origin["source"]) == (str(trial.number), "the Optuna study sweep")
        assert (record.attempt, record.gpu_seconds, record.started_at) == (0, 0.0, None)
        curve = {step: row["val_top1"] for step, row in record.curve.items()}
        assert curve == {step + 1: value for step, value in trial.intermediate_values.items()}
        if trial.value is not None:
            assert record.metrics is not None
            assert record.metrics["val_top1"] == trial.value
    states = [record.state for record in found]
    assert states == ["completed", "stopped", "failed", "completed", "completed"]
    again = hpo(service, "study", "import", "demo", file)
    assert (again.code, "imported 0; 5 were there already" in again.out) == (0, True), again
    assert len(_records(service)) == 5
    with service.database.transaction() as connection:
        row = studies.get(connection, "demo")
    # Neither the budget of trials, nor that of failures, nor the target knows of them.
    assert (row.live_trials, row.imported, row.state, dict(row.counts)) == (0, 5, "active", {})
    shown = hpo(service, "study", "show", "demo")
    assert "imported: 5 results" in shown.out
    assert "best: trial" in shown.out
    assert "imported: 3 of the Optuna study sweep" in hpo(service, "trial", "show", "demo", "3").out


def test_our_export_comes_back_as_it_was(service: Service, hpo: Command, tmp_path: Path) -> None:
    study_id = service.create()
    service.complete(study_id, 2)
    [third] = service.suggest(study_id, points=[{"lr": 0.2, "dropout": 0.5}])
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        for step in (1, 2):
            http.post(f"/v1/trials/{third.id}/reports", json=measured(lease, step, 0.3 * step)).raise_for_status()
        end = {"attempt": lease["attempt"], "lease_id": lease["lease_id"], "outcome": "stopped"}
        http.post(f"/v1/trials/{third.id}/finish", json={**end, "metrics": {"val_top1": 0.6, "val_loss": 0.4}})
    url = f"sqlite:///{tmp_path}/ours.db"
    assert hpo(service, "export", "demo", "--to-optuna", url).code == 0
    service.create(name="again")
    assert hpo(service, "study", "import", "again", tmp_path / "ours.db").code == 0
    before, after = _records(service), _records(service, "again")
    for old, new in zip(before, after, strict=True):
        assert (new.params, new.state) == (old.params, old.state)
        assert new.metrics is not None
        assert old.metrics is not None
        assert new.metrics["val_top1"] == old.metrics["val_top1"]
        first = {step: row["val_top1"] for step, row in old.curve.items()}
        assert {step: row["val_top1"] for step, row in new.curve.items()} == first


def test_an_ax_snapshot_becomes_trials(service: Service, hpo: Command, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = _ax(tmp_path / "ax.json")
    service.create()
    said = hpo(service, "study", "import", "demo", tmp_path / "ax.json")
    assert (said.code, "2 completed, 1 failed" in said.out, "1: it has not ended" in said.out) == (0, True, True), said
    found = _records(service)
    for record, index in zip(found, (0, 1, 2), strict=True):
        assert dict(record.params) == client._experiment.trials[index].arm.parameters
    assert [None if record.metrics is None else record.metrics["val_top1"] for record in found] == [0.5, None, 0.52]
    assert {step: row["val_top1"] for step, row in found[2].curve.items()} == {1: 0.12, 2: 0.22, 3: 0.52}


def _ax(path: Path) -> Any:
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client(random_seed=0)
    ranges = [RangeParameterConfig(name=name, bounds=bounds, parameter_type="float") for name, bounds in RANGES.items()]
    client.configure_experiment(name="sweep", parameters=ranges)
    client.configure_optimization(objective="val_top1")
    for number in range(4):
        [(index, _)] = client.get_next_trials(max_trials=1).items()
        if number == 1:
            client.mark_trial_failed(index)
        elif number < 3:
            for step in (1, 2):
                client.attach_data(index, {"val_top1": 0.1 * step + number / 100}, progression=step)
            client.complete_trial(index, {"val_top1": (0.5 + number / 100, 0.01)}, progression=3)
    client.save_to_json_file(str(path))
    return client


TABLES = {
    "own": "learning_rate,dropout,accuracy\n0.01,0.5,0.7\n0.02,0.5,0.8\n0.02,0.5,0.8\n9,0.5,0.9\n0.01,,0.6\n0.1,0.1,\n",
    "wandb": "Name,State,Runtime,config.learning_rate,config.dropout,accuracy\n"
    "a,finished,9,0.01,0.5,0.7\nb,finished,9,0.02,0.5,0.8\nc,finished,9,0.02,0.5,0.8\nd,finished,9,9,0.5,0.9\n"
    "e,finished,9,0.01,,0.6\nf,crashed,9,0.1,0.1,\ng,running,9,0.1,0.1,0.1\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_becomes_trials_and_says_what_does_not_fit(
    service: Service, hpo: Command, tmp_path: Path, kind: str
) -> None:
    service.create()
    file = tmp_path / "runs.csv"
    file.write_text(TABLES[kind])
    names = ["--map", "lr=learning_rate", "--map", "val_top1=accuracy"]
    said = hpo(service, "study", "import", "demo", file, *names, "--json")
    assert said.code == 0, said
    reasons = said.json["left_out"]
    failed = int(kind == "wandb")
    assert said.json["added"] == list(range(3 + failed))
    assert reasons["its lr is outside of the space"] == 1
    assert sum(count for reason, count in reasons.items() if "no value of dropout" in reason) == 1
    records = _records(service)
    assert [dict(record.params) for record in records[:3]] == [{"lr": lr, "dropout": 0.5} for lr in (0.01, 0.02, 0.02)]
    assert [record.metrics and record.metrics["val_top1"] for record in records[:3]] == [0.7, 0.8, 0.8]
    assert [record.state for record in records[3:]] == ["failed"] * failed
    moved = file.rename(tmp_path / "moved.csv")
    assert hpo(service, "study", "import", "demo", moved, *names, "--json").json["added"] == []
    given = hpo(service, "study", "import", "demo", moved, *names, "--set", "dropout=0.3", "--json")
    assert given.json["added"] == [3 + failed], "the row without dropout is new"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (("a.csv", "lr,dropout,val_top1\n1,2\n"), ((), "row 2 has 2 values")),
        (("a.csv", ""), ((), "no table of trainings")),
        (("a.csv", "lr,lr\n1,2\n"), ((), "several columns named")),
        (("a.csv", "learning_rate,dropout,val_top1\n0.1,0.1,0.5\n"), ((), "--map lr=NAME")),
        (("a.csv", "lr,dropout,val_top1\n0.1,0.1,0.5\n"), (("--map", "lr=rate"), "has no 'rate'")),
        (("a.csv", "lr,dropout,val_top1\n0.1,0.1,0.5\n"), (("--map", "rate=lr"), "no parameter or metric 'rate'")),
        (("a.csv", "lr,dropout,val_top1\n0.1,0.1,0.5\n"), (("--from", "optuna"), "storage of Optuna")),
        (("a.json", '{"experiment": []}'), ((), "no snapshot of Ax")),
        (("a.json", '{"trials": {"0": 3}}'), ((), "no snapshot of Ax")),
        (("a.csv", "lr,dropout,val_top1\n0.1,0.1,0.5\n"), (("--map", "lr"), "two names")),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    service: Service, hpo: Command, tmp_path: Path, file: tuple[str, str], said: tuple[tuple[str, ...], str]
) -> None:
    service.create()
    path = tmp_path / file[0]
    path.write_text(file[1])
    options, expected = said
    answer = hpo(service, "study", "import", "demo", path, *options)
    assert answer.code != 0
    assert expected in " ".join(answer.err.replace("│", " ").split())
    assert "Traceback" not in answer.err
    assert _records(service) == []


def test_all_of_a_call_are_taken_over_or_none(service: Service, http: httpx.Client) -> None:
    service.create()
    good = {
        "origin": {"source": "x", "trial": "1", "key": "k1"},
        "params": {"lr": 0.1, "dropout": 0.1},
        "state": "completed",
        "metrics": {"val_top1": 0.5},
    }
    wrongs: tuple[dict[str, Any], ...] = (
        {"params": {"lr": 9, "dropout": 0.1}},
        {"metrics": {}},
        {"origin": good["origin"]},
        {"curve": {"11": {"val_top1": 0.1}}},
        {"state": "failed"},
    )
    for wrong in wrongs:
        other = {**good, "origin": {"source": "x", "trial": "2", "key": "k2"}, **wrong}
        answer = http.post("/v1/studies/demo/import", json={"trials": [good, other]})
        assert (answer.status_code, "trials[1]" in answer.text) == (422, True), answer.text
        assert _records(service) == []
    assert http.post("/v1/studies/demo/import", json={"trials": [good]}).json() == {"numbers": [0]}
    http.post("/v1/studies/demo/stop").raise_for_status()
    late = http.post("/v1/studies/demo/import", json={"trials": [good]})
    assert (late.status_code, "has ended" in late.text) == (409, True)


def test_a_trial_that_is_taken_out_counts_for_nothing_and_its_number_stays(service: Service, hpo: Command) -> None:
    study_id = service.create()
    service.complete(study_id, 3)
    running = service.suggest(study_id)[0]
    with service.http("worker") as http:
        http.post("/v1/leases", json=claim_body()).raise_for_status()
    assert hpo(service, "best", "demo", "--json").json["number"] == 2
    assert hpo(service, "trial", "delete", "demo", "2", "--yes").code == 0
    assert hpo(service, "best", "demo", "--json").json["number"] != 2
    with service.database.transaction() as connection:
        row = studies.get(connection, "demo")
    assert (row.live_trials, row.counts[TrialState.WITHDRAWN]) == (3, 1)
    refused = hpo(service, "trial", "delete", "demo", str(running.number), "--yes")
    assert (refused.code != 0, "cancel it and wait" in " ".join(refused.err.split())) == (True, True), refused
    twice = hpo(service, "trial", "delete", "demo", "2", "--yes")
    assert (twice.code != 0, "out of its study already" in " ".join(twice.err.split())) == (True, True), twice
    again = hpo(service, "trial", "retry", "demo", "1")
    assert again.code == 0, again
    kept = hpo(service, "trial", "delete", "demo", "1", "--yes")
    assert (kept.code != 0, "was trained again as trial 4" in " ".join(kept.err.split())) == (True, True), kept
    _records(service)
    assert "was taken out by" in hpo(service, "logs", "demo").out


def test_an_imported_trial_that_was_taken_out_may_come_again(service: Service, hpo: Command, tmp_path: Path) -> None:
    service.create()
    file = tmp_path / "runs.csv"
    file.write_text("lr,dropout,val_top1,weight\n0.1,0.1,0.5,3\n")
    for number in (0, 1):
        assert hpo(service, "study", "import", "demo", file, "--json").json["added"] == [number]
        assert json.loads(hpo(service, "trial", "show", "demo", str(number), "--json").out)["origin"].startswith(
            "row 2 of"
        )
        assert hpo(service, "trial", "delete", "demo", str(number), "--yes").code == 0
    assert [record.state for record in _records(service)] == ["withdrawn"] * 2
