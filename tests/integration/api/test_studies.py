"""Studies over HTTP: create in both formats, refuse what is wrong, steer, delete."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import yaml

from hpo.cli.spec_check import search_fragment, with_models
from hpo.errors import SpecError, SpecIssue
from hpo.spec import StudySpec, parse_spec
from hpo.store import Database, studies

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
    assert StudySpec.model_validate(made.json()["spec"]) == StudySpec.model_validate(spec())


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
    assert (gone.status_code, gone.content) == (204, b"")
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
    assert row["best"] == {"number": lease["number"], "metric": "val_top1", "value": 0.75}
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
