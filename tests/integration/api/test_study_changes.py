"""Changing the budget of a study, and giving one that has ended more to do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import text

from hpo.service.finishing import end_finished_studies
from hpo.store import lifecycle, studies
from hpo.trial import ENQUEUED, Suggestion

from .service import Service, claim_body, fence, measured


def _study(http: httpx.Client) -> dict[str, Any]:
    return dict(http.get("/v1/studies/demo").raise_for_status().json())


def _edit(http: httpx.Client, **budget: Any) -> httpx.Response:
    return http.patch("/v1/studies/demo", json={"budget": budget})


def _reopen(http: httpx.Client, **budget: Any) -> httpx.Response:
    return http.post("/v1/studies/demo/reopen", json={"budget": budget})


def _kinds(http: httpx.Client) -> list[str]:
    return [event["kind"] for event in http.get("/v1/studies/demo/events").json()]


def test_named_limits_change_and_others_stay(service: Service, http: httpx.Client) -> None:
    service.create(budget={"trials": 20, "gpu_hours": 4.0, "target": {"val_top1": 0.9}})
    changed = _edit(http, trials=30, target=None)
    assert changed.status_code == 200, changed.text
    budget = changed.json()["spec"]["budget"]
    assert (budget["trials"], budget["gpu_hours"], budget["target"]) == (30, 4.0, {})
    assert changed.json()["revision"] == 2
    assert changed.json() == _study(http)
    (event,) = [event for event in http.get("/v1/studies/demo/events").json() if event["kind"] == "study.edited"]
    assert event["detail"] == {"budget": {"trials": 30, "target": {}}}


def test_what_changes_nothing_is_not_a_revision(service: Service, http: httpx.Client) -> None:
    service.create()
    assert _edit(http, trials=20).json()["revision"] == 1
    assert "study.edited" not in _kinds(http)


@pytest.mark.parametrize(
    ("budget", "path"),
    [
        ({"trials": None}, "budget"),
        ({"target": {"val_top9": 0.5}}, "budget.target.val_top9"),
    ],
    ids=["endless", "unknown metric"],
)
def test_a_budget_that_no_spec_may_have_changes_nothing(
    service: Service, http: httpx.Client, budget: dict[str, Any], path: str
) -> None:
    service.create()
    before = _study(http)
    refused = _edit(http, **budget)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-spec")
    assert [error["path"] for error in refused.json()["errors"]] == [path]
    assert _study(http) == before


def test_a_limit_below_the_trials_that_there_are_is_refused(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(), 3)
    refused = _edit(http, trials=2)
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "the study 'demo' has 3 trials already, more than 2",
    )
    assert _edit(http, trials=3).status_code == 200


def test_a_limit_that_is_reached_already_ends_the_study(service: Service, http: httpx.Client) -> None:
    service.complete(service.create(), 3)
    ended = _edit(http, trials=3).json()
    assert (ended["state"], ended["state_reason"]) == ("completed", "all 3 trials are done")


def test_an_ended_study_searches_on_with_room_for_more(service: Service, http: httpx.Client) -> None:
    study_id = service.create(budget={"trials": 2})
    service.complete(study_id, 2)
    assert _study(http)["state"] == "completed"
    assert _edit(http, trials=4).status_code == 409
    again = _reopen(http)
    assert again.status_code == 409
    assert again.json()["detail"].startswith("the study 'demo' would end again at once: all 2 trials are done")
    assert _study(http)["state"] == "completed", "nothing of what was refused stays"
    opened = _reopen(http, trials=3)
    assert opened.status_code == 200, opened.text
    assert (opened.json()["state"], opened.json()["finished_at"], opened.json()["state_reason"]) == (
        "active",
        None,
        None,
    )
    service.complete(study_id, 1)
    assert (_study(http)["state"], _study(http)["trial_counts"]) == ("completed", {"completed": 3})
    assert [kind for kind in _kinds(http) if kind.startswith("study.")] == [
        "study.created",
        "study.completed",
        "study.edited",
        "study.resumed",
        "study.completed",
    ]


def test_a_stopped_study_goes_on_and_what_it_ended_was_not_saved_by_stopping(
    service: Service, http: httpx.Client
) -> None:
    service.suggest(service.create(), 1)
    lease = http.post("/v1/leases", json=claim_body()).json()
    path = f"/v1/trials/{lease['trial_id']}"
    http.post(f"{path}/reports", json=measured(lease, 1, 0.5)).raise_for_status()
    http.post("/v1/studies/demo/stop").raise_for_status()
    refused = _reopen(http)
    assert (refused.status_code, "is ending" in refused.json()["detail"]) == (409, True)
    end = {**fence(lease), "outcome": "stopped", "metrics": {"val_top1": 0.5}}
    http.post(f"{path}/finish", json=end).raise_for_status()
    end_finished_studies(service.database)
    opened = _reopen(http)
    assert opened.status_code == 200, opened.text
    assert (opened.json()["state"], opened.json()["gpu_hours_saved"]) == ("active", 0.0)
    assert http.post(f"{path}/finish", json=end).status_code == 200, "a result whose reply was lost is confirmed"


def test_too_many_failures_can_be_allowed(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(budget={"trials": 5, "max_failed": 1}), 1)
    lease = http.post("/v1/leases", json=claim_body()).json()
    failure = {**fence(lease), "outcome": "failed", "failure_kind": "error", "failure_message": "no"}
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=failure).raise_for_status()
    assert _study(http)["state"] == "failed"
    assert _reopen(http).status_code == 409
    assert _reopen(http, max_failed=None).json()["state"] == "active"


def test_a_study_that_has_not_ended_is_not_opened(service: Service, http: httpx.Client) -> None:
    service.create()
    refused = _reopen(http, trials=30)
    assert (refused.status_code, "`hpo study edit demo`" in refused.json()["detail"]) == (409, True)
    assert _study(http)["spec"]["budget"]["trials"] == 20


def test_what_a_person_asked_for_and_nobody_had_claimed_is_tried_after_all(
    service: Service, http: httpx.Client
) -> None:
    study_id = service.create()
    guess = {"lr": 0.02, "dropout": 0.3}
    http.post("/v1/studies/demo/trials", json={"guesses": [guess]}).raise_for_status()
    for _ in range(2):
        with service.database.transaction() as connection:
            generation = studies.acquire_generator(connection, study_id, "optimizer", 600.0)
            assert generation is not None
            asked = Suggestion(params=guess, generator=ENQUEUED)
            lifecycle.suggest(connection, study_id, [asked], owner="optimizer", generation=generation)
        assert _study(http)["guesses_waiting"] == 0
        http.post("/v1/studies/demo/stop").raise_for_status()
        end_finished_studies(service.database)
        assert _reopen(http).json()["guesses_waiting"] == 1, "once, also after the second time"


def test_a_study_with_finalists_is_not_opened_to_train_them_again_at_once(service: Service, http: httpx.Client) -> None:
    study_id = service.create(budget={"trials": 9, "target": {"val_top1": 0.05}})
    service.complete(study_id, 2)
    assert _study(http)["state"] == "completed"
    with service.database.transaction() as connection:
        connection.execute(
            text('UPDATE study SET finalists = \'{"top": 2, "seeds": 1}\' WHERE id = :id'), {"id": study_id}
        )
    refused = _reopen(http)
    assert (refused.status_code, "reached the target" in refused.json()["detail"]) == (409, True)
    assert _reopen(http, target=None).status_code == 200
