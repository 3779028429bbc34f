"""`hpo trials`, `best`, `export`, `workers` and `logs` of a study with a past, and of one without."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from hpo.results.export import load_export

from ..api.service import SPEC, Service, claim_body, finished, measured
from .conftest import Command


def _numbers(table: str) -> list[int]:
    """Return the numbers in the first column of a table."""
    cells = (line.strip("│").split("│")[0].strip() for line in table.splitlines() if line.startswith("│"))
    return [int(cell) for cell in cells if cell.isdecimal()]


def _complete(service: Service, points: list[dict[str, float]], **sections: Any) -> None:
    """Make a study whose trials end with these metrics."""
    service.suggest(service.create(**sections), len(points))
    with service.http("worker") as http:
        for point in points:
            lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
            body = {**finished(lease, 0.0), "metrics": point}
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()


def test_trials_are_listed_best_first(past_service: Service, hpo: Command) -> None:
    found = hpo(past_service, "trials", "demo", "--json", scope="read").json
    assert [trial["number"] for trial in found] == list(range(10))
    with past_service.http("read") as http:
        configurations = http.get("/v1/studies/demo/answer").json()["configurations"]
    believed = [number for one in configurations for number in one["trials"]]
    listed = _numbers(hpo(past_service, "trials", "demo", scope="read").out)
    assert sorted(listed) == list(range(10))
    assert listed[: len(believed)] == believed
    ended = {trial["number"] for trial in found if trial["state"] in ("completed", "stopped")}
    assert set(believed) == ended


def test_trials_are_filtered_and_sorted(past_service: Service, hpo: Command) -> None:
    def listed(*arguments: str) -> list[int]:
        said = hpo(past_service, "trials", "demo", *arguments, scope="read")
        assert said.code == 0, said.err
        return _numbers(said.out)

    assert listed("--sort", "lr") == list(range(10))
    assert listed("--sort", "lr", "--reverse") == list(range(9, -1, -1))
    assert sorted(listed("--state", "stopped", "--state", "failed")) == [1, 4, 6]
    assert listed("--where", "lr<0.001", "--where", "dropout >= 0.07", "--sort", "trial") == [1, 2]
    assert listed("--where", "failure=oom") == [4]
    moments = {one["number"]: one["started_at"] for one in hpo(past_service, "trials", "demo", "--json").json}
    known = {number: moment for number, moment in moments.items() if moment is not None}
    third = sorted(known.values())[2]
    after = sorted(number for number, moment in known.items() if moment > third)
    assert sorted(listed("--where", f"started>{third}")) == after
    naive = third.removesuffix("Z").removesuffix("+00:00")
    assert sorted(listed("--where", f"started > {naive.replace('T', ' ')}")) == after, "in UTC"
    day, last = min(known.values())[:10], max(known.values())[:10]
    assert sorted(listed("--where", f"started>={day}", "--where", f"started<={last}")) == sorted(known), "all of a day"
    assert listed("--where", f"started>{last}") == listed("--where", f"started<{day}") == []
    tops = [
        trial["metrics"]["val_top1"]
        for trial in hpo(past_service, "trials", "demo", "--json", "--state", "completed", "--sort", "val_top1").json
    ]
    assert tops == sorted(tops)


def test_why_trials_failed_is_below_the_table(past_service: Service, hpo: Command) -> None:
    said = hpo(past_service, "trials", "demo").out
    assert "\ntrial 4 failed: oom: CUDA out of memory\n" in said
    assert hpo(past_service, "trials", "demo", "--state", "running").out.endswith("1 of 10 trials\n")


def test_trials_are_a_file_for_a_spreadsheet(past_service: Service, hpo: Command) -> None:
    rows = list(csv.DictReader(io.StringIO(hpo(past_service, "trials", "demo", "--csv").out)))
    found = hpo(past_service, "trials", "demo", "--json").json
    assert [row["number"] for row in rows] == [str(trial["number"]) for trial in found]
    assert [float(row["params.lr"]) for row in rows] == [trial["params"]["lr"] for trial in found]
    assert (rows[4]["failure_kind"], rows[4]["failure_message"]) == ("oom", "CUDA out of memory")
    assert float(rows[0]["metrics.val_top1"]) == found[0]["metrics"]["val_top1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--state", "done"), "'done' is no state of a trial"),
        (("--sort", "learning"), "no trial has a value of the name 'learning'"),
        (("--sort", "val_top"), "do you mean val_top1?"),
        (("--where", "lr"), "'lr' is no condition"),
        (("--where", "lr<big"), "'big' is not a number"),
        (("--where", "state<x"), "write = or !="),
        (("--where", "started>yesterday"), "'yesterday' is no time: write 2026-01-31, or 2026-01-31T18:30 in UTC"),
    ],
)
def test_what_trials_cannot_be_listed_by_is_said(
    past_service: Service, hpo: Command, arguments: tuple[str, str], sentence: str
) -> None:
    said = hpo(past_service, "trials", "demo", *arguments)
    assert said.code == 2
    assert sentence in " ".join(said.err.replace("│", "").split())


def test_the_best_trial_is_shown_with_its_parameters(past_service: Service, hpo: Command) -> None:
    found = hpo(past_service, "best", "demo", "--json").json
    said = hpo(past_service, "best", "demo").out
    head, value, expected, probability, highest, *params = said.splitlines()
    assert head.startswith(f"trial {found['number']}: ")
    assert f"val_top1 {found['metrics']['val_top1']:.4g}" in head
    assert [line.split(":")[0] for line in params] == ["lr", "dropout"], "one objective has no front"
    evidence = found["evidence"]
    assert value.startswith(f"val_top1 {evidence['believed']:.3g} ± ")
    assert expected.startswith(f"expected on new data: {evidence['expected']:.3g} ± ")
    assert probability.startswith(f"probability that it is the best of them: {evidence['probability_best']:.0%}")
    assert highest == f"highest observed value: {evidence['highest_observed']:.3g} (trial {evidence['highest_trial']})"
    shown = hpo(past_service, "study", "show", "demo").out
    assert f"best: trial {found['number']}" in shown
    assert expected in shown


def test_with_several_objectives_the_whole_front_is_shown(service: Service, hpo: Command) -> None:
    outcomes = [(0.5, 1.0), (0.9, 9.0), (0.4, 2.0), (0.8, 8.0), (0.7, 9.5)]
    points = [{"val_top1": top, "epoch_seconds": seconds} for top, seconds in outcomes]
    objectives = [{"metric": "val_top1"}, {"metric": "epoch_seconds"}]
    _complete(service, points, objectives=objectives)
    said = hpo(service, "best", "demo").out
    assert said.startswith("trial 1: ")
    assert "It is the best by val_top1. No trial is better than these in one objective" in said
    assert "`hpo export demo --trial NUMBER` writes any of them." in said
    assert sorted(_numbers(said)) == [0, 1, 3]


@pytest.mark.parametrize("command", ["best", "export"])
def test_without_a_completed_trial_there_is_no_best(service: Service, hpo: Command, command: str) -> None:
    service.suggest(service.create())
    said = hpo(service, command, "demo")
    assert said.code == 3
    assert said.err.startswith("error: ")
    assert hpo(service, "trials", "demo").code == 0


def test_an_export_is_the_best_trial_or_the_one_asked_for(past_service: Service, tmp_path: Path, hpo: Command) -> None:
    best = hpo(past_service, "best", "demo", "--json").json["number"]
    for arguments, number in (((), best), (("--trial", "6"), 6)):
        file = tmp_path / f"{number}.yaml"
        said = hpo(past_service, "export", "demo", "-o", file, *arguments)
        assert (said.code, said.out) == (0, f"wrote {file}: trial {number} of demo\n")
        assert said.err == (
            f"its checkpoint is not on this machine (/c/{number}.pt), in {tmp_path / 'checkpoints'}; copy it from the "
            "worker's, or name its folder of checkpoints with HPO_CHECKPOINT_ROOTS\n"
        )
        assert load_export(file).trial == number


def test_a_study_is_written_for_optuna(past_service: Service, tmp_path: Path, hpo: Command) -> None:
    address = f"sqlite:///{tmp_path / 'optuna.db'}"
    said = hpo(past_service, "export", "demo", "--to-optuna", address, scope="read")
    assert (said.code, said.out) == (0, "wrote 8 trials into the Optuna study demo\n")
    study = optuna.load_study(study_name="demo", storage=address)
    by_number = {trial["number"]: trial for trial in hpo(past_service, "trials", "demo", "--json").json}
    for trial in study.trials:
        ours = by_number[trial.user_attrs["number"]]
        assert trial.params == ours["params"]
        if ours["state"] in ("completed", "stopped"):
            assert trial.value == ours["metrics"]["val_top1"]
            assert len(trial.intermediate_values) == ours["epochs_done"]
    assert [trial.state.name for trial in study.trials].count("FAIL") == 1
    assert "lr" in study.best_params
    assert hpo(past_service, "export", "demo", "--to-optuna", address).code == 4
    wrong = hpo(past_service, "export", "demo", "--to-optuna", "postgresql://me:secret@nowhere.invalid")
    assert (wrong.code, "secret" in wrong.err) == (1, False)


@pytest.mark.parametrize("arguments", [("-o", "x.yaml"), ("--trial", "0"), ("--format", "onnx")])
def test_what_says_nothing_to_optuna_is_refused(
    past_service: Service, hpo: Command, arguments: tuple[str, str]
) -> None:
    said = hpo(past_service, "export", "demo", "--to-optuna", "sqlite://", *arguments)
    assert (said.code, "leave --output, --trial and --format out" in said.err) == (1, True)


@pytest.mark.parametrize(
    "fault",
    [
        "ON trials WHEN (SELECT COUNT(*) FROM trials) >= 3 BEGIN SELECT RAISE(ABORT, 'full'); END",
        "ON trial_values BEGIN INSERT INTO nowhere VALUES (1); END",
    ],
)
def test_half_a_study_is_not_left_to_optuna(past_service: Service, tmp_path: Path, hpo: Command, fault: str) -> None:
    file = tmp_path / "optuna.db"
    address = f"sqlite:///{file}"
    optuna.create_study(study_name="theirs", storage=address)
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"CREATE TRIGGER fault BEFORE INSERT {fault}")
        database.commit()
    said = hpo(past_service, "export", "demo", "--to-optuna", address)
    assert (said.code, "cannot be written" in said.err, "in part" in said.err) == (1, True, False)
    assert optuna.get_all_study_names(storage=address) == ["theirs"]


@pytest.mark.parametrize(("number", "code"), [("4", 4), ("99", 3), ("-1", 2), ("x", 2)])
def test_a_trial_without_a_result_is_not_exported(
    past_service: Service, tmp_path: Path, hpo: Command, number: str, code: int
) -> None:
    assert hpo(past_service, "export", "demo", "--trial", number, "-o", tmp_path / "x.yaml").code == code
    assert not (tmp_path / "x.yaml").exists()


def test_workers_are_listed(service: Service, hpo: Command) -> None:
    assert hpo(service, "workers", "--json").json == []
    body = claim_body("gpu-host-7")
    body["worker"] |= {"device": "cuda", "gpu_name": "NVIDIA A100"}
    with service.http("worker") as http:
        for one in (body, claim_body("w1")):
            assert http.post("/v1/leases", json=one).status_code == 204
    rows = [line for line in hpo(service, "workers").out.splitlines() if "here" in line]
    assert sorted([cell.strip() for cell in row.strip("│").split("│")][:3] for row in rows) == [
        ["gpu-host-7", "here", "NVIDIA A100"],
        ["w1", "here", "cpu"],
    ]
    assert {worker["name"] for worker in hpo(service, "workers", "--json").json} == {"gpu-host-7", "w1"}


def test_the_log_is_a_line_per_event_from_the_first_on(past_service: Service, hpo: Command) -> None:
    lines = hpo(past_service, "logs", "demo").out.splitlines()
    assert "the study was created by test" in lines[0]
    assert len([line for line in lines if "was proposed by sobol" in line]) == 10
    assert len([line for line in lines if " is completed: val_" in line]) == 5
    (failed,) = [line for line in lines if " failed " in line]
    assert failed.endswith("  trial 4 failed on worker-1: oom: CUDA out of memory")
    assert not any("{" in line for line in lines), "no line shows how Python writes it"
    assert [line[:19] for line in lines] == sorted(line[:19] for line in lines)


def test_a_followed_log_asks_for_what_is_new_until_it_is_interrupted(
    past_service: Service, hpo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    # Of this module alone: threads of the service sleep, too.
    monkeypatch.setattr("hpo.cli.logs.time", SimpleNamespace(sleep=sleep))
    once = hpo(past_service, "logs", "demo")
    followed = hpo(past_service, "logs", "demo", "--follow")
    assert (once.code, followed.code, pauses) == (0, 130, [1.0] * 3)
    assert followed.out == once.out, "nothing is printed twice"


def test_a_trial_is_shown_with_what_it_started_from(empty_service: Service, hpo: Command) -> None:
    task = {**SPEC["task"], "base": {"weights": "k400.pth"}}
    empty_service.suggest(empty_service.create(task=task))
    none = {"count": 0, "first": []}
    started = {
        "source": "k400.pth",
        "sha256": "1" * 64,
        "layout": "PySlowFast",
        "loaded": 318,
        "adapted": none,
        "reset": {"count": 9, "first": ["head.weight"]},
        "kept": none,
        "dropped": none,
        "notes": ["a note"],
    }
    with empty_service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        body = {**measured(lease, 1, 0.25), "weights": [started]}
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body).raise_for_status()
    said = hpo(empty_service, "trial", "show", "demo", "0").out
    assert "trial 0: running, 1 epochs, on w1" in said
    assert "val_top1 0.25" in said
    assert "lr: 0.01" in said
    assert f"weights: k400.pth, SHA-256 {'1' * 64}, layout: PySlowFast" in said
    assert "318 tensors loaded" in said
    assert "9 drawn anew, of the head: head.weight, ..." in said
    assert "a note" in said
    assert hpo(empty_service, "trial", "show", "demo", "0", "--json").json["weights"][0]["loaded"] == 318
    assert "trial 0 loaded its pre-trained weights" in hpo(empty_service, "logs", "demo").out
    assert hpo(empty_service, "trial", "show", "demo", "7").code == 3
