"""`hpo study`: what a person sees of it, what a script reads, and the exit code of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from ..api.service import Service, claim_body, fence, finished, measured, spec
from .conftest import Command


def _write(folder: Path, **changes: Any) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(spec(**changes)))
    return file


def test_a_study_is_created_once(service: Service, tmp_path: Path, hpo: Command) -> None:
    file = _write(tmp_path)
    made = hpo(service, "study", "create", file)
    assert (made.code, made.out) == (
        0,
        "study demo is active; start a worker with `hpo-worker --gpu 0` (or --cpu)\n",
    )
    again = hpo(service, "study", "create", file)
    assert again.code == 4
    assert again.err.startswith("error: ")
    assert "demo" in again.err


def test_a_relative_folder_is_one_of_the_person_and_not_of_each_worker(
    service: Service, tmp_path: Path, hpo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = spec()["task"]
    file = _write(tmp_path, task={**task, "dataset": {**task["dataset"], "root": "videos/ucf101"}})
    assert hpo(service, "study", "create", file).code == 0
    stored = hpo(service, "study", "show", "demo", "--json").json["spec"]
    assert stored["task"]["dataset"]["root"] == str(tmp_path / "videos" / "ucf101")


def test_too_few_validation_clips_are_said_when_the_study_is_created(
    service: Service, tmp_path: Path, hpo: Command
) -> None:
    """Six groups of three clips in each of two classes, of which one group is held out: six clips."""
    videos = tmp_path / "videos"
    for name in ("Run", "Walk"):
        for place in range(18):
            clip = videos / name / f"v_{name}_g{place // 3 + 1:02d}_c{place % 3 + 1:02d}.avi"
            clip.parent.mkdir(parents=True, exist_ok=True)
            clip.touch()
    task = {**spec()["task"], "dataset": {"name": "class_folders", "root": str(videos)}}
    made = hpo(service, "study", "create", _write(tmp_path, task=task))
    assert made.code == 0
    assert made.out.startswith("note: with 6 validation clips, differences of val_top1 below 0.31 cannot be seen")
    losses = _write(tmp_path, name="losses", task=task, objectives=[{"metric": "val_loss"}])
    assert "note" not in hpo(service, "study", "create", losses).out
    again = hpo(service, "study", "create", _write(tmp_path, name="again", task=task), "--json").json
    assert again["few_clips"].startswith("with 6 validation clips, differences of val_top1 below 0.31 cannot be seen")


def test_json_of_a_new_study_is_what_the_api_says(service: Service, tmp_path: Path, hpo: Command) -> None:
    made = hpo(service, "study", "create", _write(tmp_path), "--json").json
    assert made == hpo(service, "study", "show", "demo", "--json").json
    assert (made["name"], made["state"], made["trial_counts"]) == ("demo", "active", {})


def test_each_wrong_field_is_a_line_and_nothing_is_created(service: Service, tmp_path: Path, hpo: Command) -> None:
    space = {"lr": {"type": "float", "low": 0.0, "high": 0.3, "log": True}, "model": {"type": "categorical"}}
    wrong = hpo(service, "study", "create", _write(tmp_path, space=space))
    assert wrong.code == 2
    lines = wrong.err.splitlines()
    assert all(line.startswith("error: space.") for line in lines)
    assert {line.split(":")[1].split(".")[1] for line in lines} == {"lr", "model"}
    unknown = _write(tmp_path, task={**spec()["task"], "base": {"model": "resnet_of_mine"}})
    assert hpo(service, "study", "create", unknown).code == 2, "models are checked before anything is sent"
    assert hpo(service, "study", "list", "--json").json == []


def test_the_list_has_a_row_for_each_study(past_service: Service, hpo: Command) -> None:
    listed = hpo(past_service, "study", "list")
    (row,) = [line for line in listed.out.splitlines() if "demo" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:2] == ["demo", "active"]
    assert cells[2].startswith("8 of ")
    assert cells[2].endswith(", 1 running")
    best = hpo(past_service, "study", "list", "--json").json[0]["best"]
    assert cells[3].startswith(f"val_top1 {best['evidence']['believed']:.3g} ± ")
    assert cells[3].endswith(f" (trial {best['number']})")
    # 4 or 10 epochs of a second of GPU time each; the trial that runs counts up to now, at most a heartbeat long.
    assert 0.017 <= float(cells[4].split(" of ")[0]) <= 0.021


def test_without_studies_the_list_says_what_to_do(service: Service, hpo: Command) -> None:
    assert "create one with `hpo study create SPEC.yaml`" in hpo(service, "study", "list").out


def test_one_study_is_shown_in_sentences(past_service: Service, hpo: Command) -> None:
    shown = hpo(past_service, "study", "show", "demo", scope="read")
    first, trials, hours, left, *best = shown.out.splitlines()
    assert best[0].startswith("best: trial ")
    assert best[1].startswith("  val_top1 ")
    assert first == "demo: active"
    assert trials.startswith("trials: 8 of ")
    assert set(trials.partition(" have ended: ")[2].split(", ")) == {
        "5 completed",
        "2 stopped",
        "1 failed",
        "1 running",
        "1 suggested",
    }
    assert left.startswith("time left: about ")
    assert [line for line in best if line.startswith("workers: ")] == ["workers: 2 waiting, 1 training it"]
    assert [line for line in best if line.startswith("data set: ")] == ["data set: ucf101 in /data/ucf101"]
    # Epochs of a second; two trials were stopped after 4 of 10.
    assert hours.startswith("GPU hours: 0.0")
    assert ": 0.017 in epochs" in hours
    assert hours.endswith(" (0.0033 more saved by early stopping)")


def test_without_a_worker_it_is_said_how_to_start_one(service: Service, hpo: Command) -> None:
    service.create()
    assert (
        "workers: no worker is connected: start one with `hpo-worker --gpu 0`"
        in hpo(service, "study", "show", "demo").out
    )


def test_workers_with_too_few_gpus_are_none(service: Service, hpo: Command) -> None:
    service.create(resources={"gpus": 2})
    claim = claim_body()
    claim["worker"] |= {"gpu_name": "NVIDIA L4"}
    with service.http("worker") as http:
        assert http.post("/v1/leases", json=claim).status_code == 204
        said = hpo(service, "study", "show", "demo").out
        assert "workers: no worker with 2 GPUs is connected: start one with `hpo-worker --gpus 0,1`" in said
        claim["worker"] |= {"gpus": 2}
        http.post("/v1/leases", json={**claim, "lease_id": str(uuid4())}).raise_for_status()
    assert "workers: 1 waiting" in hpo(service, "study", "show", "demo").out
    assert "2 x NVIDIA L4" in hpo(service, "workers").out


def test_videos_that_are_left_out_are_named(service: Service, hpo: Command) -> None:
    service.suggest(service.create(task=spec()["task"] | {"dataset": {"name": "ucf101", "root": "/data/my videos"}}))
    left_out = [{"path": "Run/v_Run_g01_c01.avi", "note": "it ends in the middle"}]
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        found = {"train": 9_000, "validation": 500, "left_out": 1, "examples": left_out}
        body = {**finished(lease, 0.5), "environment": {"dataset": found}, "dataset_version": "d1"}
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()
    shown = hpo(service, "study", "show", "demo").out
    assert "data set: ucf101 in /data/my videos: 9,000 videos to train, 500 to validate\n" in shown
    assert "  1 video is left out; `hpo data check '/data/my videos'` names all:\n" in shown
    assert "    Run/v_Run_g01_c01.avi: it ends in the middle\n" in shown
    with service.http("read") as http:
        page = http.get("/studies/demo", headers={"Accept": "text/html"}).text
    assert "it ends in the middle" in page


def test_what_hours_went_into_and_a_small_space_are_shown(service: Service, hpo: Command) -> None:
    space = {"dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.5}}
    study_id = service.create(space=space, budget={"trials": 9, "gpu_hours": 2.0})
    service.suggest(study_id, points=[{"dropout": 0.0}, {"dropout": 0.5}])
    with service.http() as http:
        for outcome in ("completed", "failed"):
            lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
            report = measured(lease, 1, 0.5)
            report["measurements"][0]["gpu_seconds"] = 900.0
            http.post(f"/v1/trials/{lease['trial_id']}/reports", json=report).raise_for_status()
            failure = {**fence(lease), "outcome": "failed", "failure_kind": "error", "failure_message": "no disk"}
            end = finished(lease, 0.5) if outcome == "completed" else failure
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).raise_for_status()
            if outcome == "completed":
                shown = hpo(service, "study", "show", "demo").out
                assert "the space has 2 configurations; the study ends when each has been tried" in shown
    lines = hpo(service, "study", "show", "demo").out.splitlines()
    assert lines[0] == "demo: completed (the space is used up: each of its 2 configurations has been tried)"
    assert lines[2] == "GPU hours: 0.5 of 2: 0.25 in epochs, 0.25 in trials that failed"
    shown = hpo(service, "study", "show", "demo", "--json").json
    assert shown["configurations"] == 2
    assert shown["gpu_hours_by_kind"] == {"trained": 0.25, "failed": 0.25, "startup": 0.0}


def test_a_study_is_paused_resumed_stopped_and_deleted(service: Service, hpo: Command) -> None:
    service.create()
    for verb, state in (("pause", "paused"), ("resume", "active"), ("stop", "stopped")):
        said = hpo(service, "study", verb, "demo", *_yes(verb))
        assert (said.code, said.out.splitlines()[0].split(" (")[0]) == (0, f"study demo is {state}")
    assert hpo(service, "study", "resume", "demo").code == 4, "a stopped study has ended"
    deleted = hpo(service, "study", "delete", "demo", "--yes")
    assert (deleted.code, deleted.out) == (0, "study demo is deleted\n")
    assert hpo(service, "study", "list", "--json").json == []


def _yes(verb: str) -> list[str]:
    return ["--yes"] if verb in ("stop", "delete") else []


@pytest.mark.parametrize(
    ("verb", "question"),
    [
        ("delete", "Delete study demo with all its trials and their checkpoints?"),
        ("stop", "Stop study demo and end its 1 running trial?"),
    ],
)
def test_what_cannot_be_undone_asks_first(
    service: Service, hpo: Command, monkeypatch: pytest.MonkeyPatch, verb: str, question: str
) -> None:
    service.suggest(service.create(), 1)
    with service.http() as http:
        http.post("/v1/leases", json=claim_body()).raise_for_status()
    asked = []

    def confirm(question: str, *, abort: bool) -> None:
        asked.append((question, abort))
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.confirm", confirm)
    assert hpo(service, "study", verb, "demo").code == 130
    assert asked == [(question, True)]
    assert [study["state"] for study in hpo(service, "study", "list", "--json").json] == ["active"]


@pytest.mark.parametrize(
    "command",
    [
        ("study", "show", "deom"),
        ("study", "pause", "deom"),
        ("study", "resume", "deom"),
        ("study", "stop", "deom", "--yes"),
        ("study", "edit", "deom", "--trials", "9"),
        ("study", "reopen", "deom"),
        ("study", "clone", "deom", "other"),
        ("study", "delete", "deom", "--yes"),
        ("study", "enqueue", "deom", "lr=0.1"),
        ("trials", "deom"),
        ("best", "deom"),
        ("export", "deom"),
        ("logs", "deom"),
    ],
    ids=" ".join,
)
def test_an_unknown_study_is_exit_code_3(past_service: Service, hpo: Command, command: tuple[str, ...]) -> None:
    said = hpo(past_service, *command)
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith("error: ")
    assert "deom" in said.err


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "delete"])
def test_steering_needs_more_than_a_token_to_read(past_service: Service, hpo: Command, verb: str) -> None:
    said = hpo(past_service, "study", verb, "demo", *_yes(verb), scope="read")
    assert said.code == 5
    assert said.err.startswith("error: ")
    assert hpo(past_service, "study", "show", "demo", "--json").json["state"] == "active"
