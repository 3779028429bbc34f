"""Studies over HTTP: create in both formats, refuse what is wrong, steer, delete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hpo.cli.spec_check import search_fragment, validation_clips, with_models
from hpo.errors import DataNotSeenError, SpecError, SpecIssue
from hpo.spec import StudySpec, parse_spec
from hpo.store import Database, studies

from ..store.world import run
from .service import Service, claim_body, fence, finished, measured, serving, spec

YAML = {"content-type": "application/yaml"}


def test_a_created_study_can_be_read_back(http: httpx.Client) -> None:
    made = http.post("/v1/studies", json=spec())
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/studies/demo"
    got = http.get("/v1/studies/demo").json()
    assert got == made.json()
    assert (got["name"], got["state"], got["revision"]) == ("demo", "active", 1)
    assert (got["trial_counts"], got["best"]) == ({}, None)
    assert got["spec"]["space"]["lr"]["high"] == 0.3


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (yaml.safe_dump(spec()), YAML),
        (yaml.safe_dump(spec()), {"content-type": "text/yaml; charset=utf-8"}),
        (json.dumps(spec()), {"content-type": "application/json"}),
        (json.dumps(spec()), {"content-type": "application/x-www-form-urlencoded"}),  # what curl -d says
        ("\ufeff" + json.dumps(spec()), {}),
    ],
)
def test_json_and_yaml_make_the_same_study(http: httpx.Client, content: str, headers: dict[str, str]) -> None:
    made = http.post("/v1/studies", content=content.encode(), headers=headers)
    assert made.status_code == 201, made.text
    assert StudySpec.model_validate(made.json()["spec"]) == StudySpec.model_validate(spec()).of_new_study()


RECOMMENDED = {"precise_bn": True, "decay_tables": False}
"""Where the space has `dropout`."""


@pytest.mark.parametrize(
    ("said", "base"),
    [
        ({}, RECOMMENDED),
        ({"task": {**spec()["task"], "base": {"lr": 0.1}}}, {"lr": 0.1, **RECOMMENDED}),
        ({"task": {**spec()["task"], "base": {"precise_bn": False}}}, {**RECOMMENDED, "precise_bn": False}),
        (
            {"space": {"precise_bn": {"type": "categorical", "choices": [True, False]}}},
            {"dropout": "card", "decay_tables": False},
        ),
    ],
)
def test_a_new_study_gets_what_is_recommended_where_it_says_nothing(
    http: httpx.Client, said: dict[str, Any], base: dict[str, Any]
) -> None:
    made = http.post("/v1/studies", json={**spec(), "task": {**spec()["task"], "base": {}}, **said})
    assert made.json()["spec"]["task"]["base"] == base
    assert http.get("/v1/studies/demo").json()["spec"]["task"]["base"] == base


def test_yaml_reads_exponents_as_numbers(http: httpx.Client) -> None:
    text = yaml.safe_dump(spec()).replace("0.0001", "1e-4")
    assert "1e-4" in text
    assert http.post("/v1/studies", content=text, headers=YAML).json()["spec"]["space"]["lr"]["low"] == 1e-4


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"space": {"lr": {"type": "float", "low": 1.0, "high": 0.1}}}, "space.lr"),
        ({"space": {"lr": {"type": "float", "low": "a", "high": 0.1}}}, "space.lr.low"),
        ({"objectives": [{"metric": "val_top2"}]}, "objectives[0].metric"),
        ({"budget": {}}, "budget"),
        ({"nmae": "x"}, "nmae"),
        ({"name": "a/b"}, "name"),
        ({"name": "x'; DROP TABLE study; --"}, "name"),
        ({"task": {"dataset": {"root": "/a\x00b"}, "epochs": 3}}, "task.dataset.root"),
        ({"task": {"dataset": {"root": "videos"}, "epochs": 3}}, "task.dataset.root"),
        ({"task": {"dataset": {"root": "~/videos"}, "epochs": 3}}, "task.dataset.root"),
    ],
)
def test_a_wrong_spec_names_the_field_and_stores_nothing(
    empty_service: Service, change: dict[str, Any], path: str
) -> None:
    with empty_service.http() as http:
        answer = http.post("/v1/studies", json=spec(**change))
        stored = http.get("/v1/studies").json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-spec"
    assert path in [error["path"] for error in problem["errors"]]
    assert all(error["message"] for error in problem["errors"])
    assert stored == []


@pytest.mark.parametrize(
    ("content", "headers", "words"),
    [
        (b"", {}, "empty"),
        (b"{", {"content-type": "application/json"}, "not valid JSON"),
        (b"a: [", YAML, "not valid YAML"),
        (b"\xff\xfe\x00", YAML, "not UTF-8"),
        (b"[1, 2]", {"content-type": "application/json"}, "mapping"),
        (b"name: demo budget: {}", {"content-type": "application/x-www-form-urlencoded"}, "--data-binary"),
        (b"[" * 50_000, {"content-type": "application/json"}, "nested too deeply"),
        (b"{a: " * 5_000, YAML, "nested too deeply"),
        (b"9" * 10_000, {"content-type": "application/json"}, "not valid JSON"),
        (b"a: &x [1]\nb: [*x, *x]", YAML, "aliases"),
    ],
)
def test_an_unreadable_body_is_a_sentence(
    empty_service: Service, content: bytes, headers: dict[str, str], words: str
) -> None:
    with empty_service.http() as http:
        answer = http.post("/v1/studies", content=content, headers=headers)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_a_body_that_is_too_large_or_no_text_is_refused(http: httpx.Client) -> None:
    large = http.post("/v1/studies", content=b" " * 300_000, headers=YAML)
    assert large.status_code == 413
    image = http.post("/v1/studies", content=b"x", headers={"content-type": "image/png"})
    assert image.status_code == 415
    assert "application/yaml" in image.json()["detail"]


def test_a_name_is_taken_once(http: httpx.Client) -> None:
    assert http.post("/v1/studies", json=spec()).status_code == 201
    again = http.post("/v1/studies", json=spec(budget={"trials": 3}))
    assert again.status_code == 409
    assert again.json()["type"] == "/problems/study-exists"
    assert "'demo'" in again.json()["detail"]
    assert http.get("/v1/studies/demo").json()["spec"]["budget"]["trials"] == 20


def test_the_check_of_the_composition_root_is_asked_before_anything_is_stored(database: Database) -> None:
    def check(found: StudySpec) -> StudySpec:
        raise SpecError([SpecIssue(path="task.base.model", message=f"no worker of {found.name} has it")])

    with serving(database, check_spec=check) as service, service.http() as http:
        answer = http.post("/v1/studies", json=spec())
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"path": "task.base.model", "message": "no worker of demo has it"}]
        assert http.get("/v1/studies").json() == []


def test_what_a_space_includes_is_stored_written_out(database: Database) -> None:
    wanted = spec(space={"include": "swin3d_t", "dropout": {"type": "float", "low": 0.0, "high": 0.1}})
    with serving(database, check_spec=with_models, fragments=search_fragment) as service, service.http() as http:
        assert http.post("/v1/studies", json=wanted).status_code == 201
        stored = http.get("/v1/studies/demo").json()["spec"]
        unknown = http.post("/v1/studies", json=spec(name="other", space={"include": ["swin3d_t", "r3d_19"]}))
    assert (stored["task"]["base"]["model"], stored["task"]["base"]["optimizer"]) == ("swin3d_t", "adamw")
    assert (stored["space"]["lr"]["high"], stored["space"]["dropout"]["high"]) == (3e-3, 0.1)
    assert "include" not in stored["space"]
    assert parse_spec(stored) == StudySpec.model_validate(stored)
    assert unknown.status_code == 422
    (error,) = unknown.json()["errors"]
    assert (error["path"], "did you mean 'r3d_18'" in error["message"]) == ("space.include[1]", True)


def test_rules_of_a_person_and_of_the_models_are_stored_and_shown(database: Database) -> None:
    space = {
        "lr": {"type": "float", "low": 0.001, "high": 0.1},
        "model.alpha": {"type": "ordinal", "choices": [4, 8]},
        "clip.frames": {"type": "int", "low": 8, "high": 32},
    }
    task = {"dataset": {"root": "/data"}, "base": {"model": "slowfast_r18"}}
    wanted = spec(task=task, space=space, rules=["clip.frames * batch_size <= 128"], model_rules=["lr < 0"])
    with serving(database, check_spec=with_models, fragments=search_fragment) as service, service.http() as http:
        answer = http.post("/v1/studies", json=wanted)
        guess = http.post("/v1/studies/demo/trials", json={"guesses": [{"model.alpha": 8, "clip.frames": 12}]})
        wrong = http.post("/v1/studies", json={**wanted, "name": "other", "rules": ["clip.frames * batch > 1"]})
    stored = answer.json()["spec"]
    assert stored["rules"] == ["clip.frames * batch_size <= 128"]
    assert stored["model_rules"] == ['if model == "slowfast_r18" then model.alpha divides clip.frames']
    assert guess.status_code == 422
    assert "breaks the rule `if model == " in guess.json()["errors"][0]["message"]
    assert wrong.json()["errors"][0]["path"] == "rules[0]"
    assert "at character 15: `batch` has no value here" in wrong.json()["errors"][0]["message"]


def test_nothing_can_be_included_where_no_catalogue_is(empty_service: Service) -> None:
    with empty_service.http() as http:
        answer = http.post("/v1/studies", json=spec(space={"include": "swin3d_t"}))
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "space.include")


def test_the_error_for_an_unknown_study_suggests_the_nearest_name(http: httpx.Client) -> None:
    http.post("/v1/studies", json=spec())
    answer = http.get("/v1/studies/dmeo")
    assert answer.status_code == 404
    assert "'demo'" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["%00", "a%00b", "'%20OR%20'1'='1", "%25s", "..%2f..", "a" * 500, "%F0%9F%A6%8A"])
@pytest.mark.parametrize("rest", ["", "/trials", "/best", "/export", "/curves", "/events"])
def test_odd_names_are_not_found(empty_service: Service, name: str, rest: str) -> None:
    with empty_service.http() as http:
        assert http.get(f"/v1/studies/{name}{rest}").status_code == 404


def test_pause_resume_stop(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    assert http.post("/v1/studies/demo/pause").json()["state"] == "paused"
    assert http.post("/v1/leases", json=claim_body()).status_code == 204
    assert http.post("/v1/studies/demo/resume").json()["state"] == "active"
    stopped = http.post("/v1/studies/demo/stop").json()
    assert stopped["state"] == "stopped"
    assert stopped["trial_counts"] == {"withdrawn": 1}
    back = http.post("/v1/studies/demo/resume")
    assert back.status_code == 409
    assert back.json()["type"] == "/problems/conflict"


def test_delete_waits_for_running_trials(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    assert http.delete("/v1/studies/demo").status_code == 409
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json={**fence(lease), "outcome": "stopped"})
    gone = http.delete("/v1/studies/demo")
    assert gone.status_code == 200
    assert {name: gone.json()[name] for name in ("name", "hosts", "files_removed", "bytes_removed", "left")} == {
        "name": "demo",
        "hosts": ["here"],
        "files_removed": 0,
        "bytes_removed": 0,
        "left": [],
    }
    assert http.get("/v1/studies/demo").status_code == 404
    late = http.post(f"/v1/trials/{lease['trial_id']}/reports", json=fence(lease))
    assert late.status_code == 404
    assert "deleted" in late.json()["detail"]


def test_actions_are_signed_with_the_name_of_the_token(service: Service, http: httpx.Client) -> None:
    http.post("/v1/studies", json=spec())
    http.post("/v1/studies/demo/pause")
    found = {event["kind"]: event["actor"] for event in http.get("/v1/studies/demo/events").json()}
    assert found == {"study.created": "admin of the test", "study.paused": "admin of the test"}


def test_the_list_shows_progress_and_the_best_value(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 2)
    lease = http.post("/v1/leases", json=claim_body()).json()
    http.post(
        f"/v1/trials/{lease['trial_id']}/finish",
        json={**fence(lease), "outcome": "completed", "metrics": {"val_top1": 0.75}},
    )
    (row,) = http.get("/v1/studies").json()
    assert row["trial_counts"] == {"completed": 1, "suggested": 1}
    evidence = row["best"].pop("evidence")
    assert row["best"] == {"number": lease["number"], "metric": "val_top1", "value": 0.75}
    assert (evidence["observed"], evidence["configurations"], evidence["probability_best"]) == (0.75, 1, 1.0)
    assert "spec" not in row
    with service.database.transaction() as connection:
        assert studies.get(connection, "demo").counts


def test_gpu_time_is_given_in_hours(service: Service, http: httpx.Client) -> None:
    """A trial of ten epochs that was stopped after two, each of half an hour."""
    service.suggest(service.create())
    lease = http.post("/v1/leases", json=claim_body()).json()
    for step in (1, 2):
        body = measured(lease, step, 0.1)
        body["measurements"][0]["gpu_seconds"] = 1800.0
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body).raise_for_status()
    end = {**finished(lease, 0.1), "outcome": "stopped"}
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).raise_for_status()
    study = http.get("/v1/studies/demo").json()
    assert (study["gpu_hours_spent"], study["gpu_hours_saved"]) == (1.0, 4.0)


@pytest.mark.parametrize(("clips", "is_noted"), [(16, True), (1000, False), (None, False)])
def test_a_new_study_says_what_its_validation_clips_cannot_show(
    database: Database, clips: int | None, is_noted: bool
) -> None:
    seen: list[str] = []

    def count(found: StudySpec) -> int | None:
        seen.append(found.name)
        return clips

    with serving(database, count_clips=count) as service, service.http() as http:
        made = http.post("/v1/studies", json=spec()).json()
        shown = http.get("/v1/studies/demo").json()
        events = [event["kind"] for event in http.get("/v1/studies/demo/events").json()]
    assert seen == ["demo"]
    assert made["few_clips"] == shown["few_clips"]
    assert events.count("study.few_clips") == int(is_noted)
    sentence = "with 16 validation clips, differences of val_top1 below 0.19 cannot be seen"
    assert (made["few_clips"] or "").startswith(sentence if is_noted else "")
    assert bool(made["few_clips"]) == is_noted


def test_what_is_wrong_with_a_folder_is_said_as_far_as_this_machine_sees_it(tmp_path: Path) -> None:
    for root, problem in ((tmp_path / "nowhere", "there is no folder "), (tmp_path, str(tmp_path))):
        found = parse_spec(spec(task={**spec()["task"], "dataset": {"root": str(root)}}))
        with pytest.raises(DataNotSeenError, match=problem):
            validation_clips(found)


def test_a_data_set_that_nobody_has_seen_is_a_warning_when_a_study_is_created(database: Database) -> None:
    """It is no error: the API may run on a machine without data."""

    def not_here(_: StudySpec) -> int | None:
        raise DataNotSeenError("there is no folder /data/ucf101")

    with serving(database, count_clips=not_here) as service, service.http() as http, service.http("worker") as works:
        made = http.post("/v1/studies", json=spec())
        assert made.status_code == 201
        assert made.json()["missing_data"].startswith(
            "the machine of the API does not see the data set (there is no folder /data/ucf101), and no live worker has"
        )
        assert http.get("/v1/studies/demo").json()["missing_data"] is None, "by then a worker may have looked"
        service.suggest(made.json()["id"])
        lease = works.post("/v1/leases", json=claim_body()).json()
        assert http.post("/v1/studies", json=spec(name="second")).json()["missing_data"] is not None
        works.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.1)).raise_for_status()
        assert http.post("/v1/studies", json=spec(name="third")).json()["missing_data"] is None, "a worker has it"
        other = {**spec()["task"], "dataset": {"root": "/elsewhere"}}
        assert http.post("/v1/studies", json=spec(name="fourth", task=other)).json()["missing_data"] is not None
        run(database, "UPDATE worker SET last_seen = '2000-01-01'")
        assert http.post("/v1/studies", json=spec(name="fifth")).json()["missing_data"] is not None


def test_a_study_is_created_when_its_clips_cannot_be_counted(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: StudySpec) -> int | None:
        raise OSError("stale file handle")

    with serving(database, count_clips=broken) as service, service.http() as http:
        answer = http.post("/v1/studies", json=spec())
    assert (answer.status_code, answer.json()["few_clips"]) == (201, None)
    assert "could not be counted" in caplog.text
