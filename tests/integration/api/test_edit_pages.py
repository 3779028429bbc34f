"""Forms that change a study and take over a table: what the store then has, and what is refused without a loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.auth import create_login_link
from hpo.store import edits

from .form import Form
from .service import KEY, Service

TABLE = "number,lr,dropout,acc,state\n1,0.01,0.1,0.5,COMPLETE\n2,0.02,0.2,0.6,COMPLETE\n3,99,0.2,0.7,COMPLETE\n"


@pytest.fixture
def admin(service: Service) -> Iterator[httpx.Client]:
    """A browser that an administrator has logged in."""
    with httpx.Client(base_url=service.url, timeout=60, headers={"Accept": "text/html"}) as browser:
        browser.get(create_login_link(service.database, KEY, service.url, token=service.tokens["admin"]))
        yield browser


def _spec(service: Service, name: str = "demo") -> dict[str, Any]:
    with service.http("read") as http:
        return dict(http.get(f"/v1/studies/{name}").raise_for_status().json()["spec"])


def _sent(browser: httpx.Client, form: Form, address: str, **changes: str) -> httpx.Response:
    data = form.values | {f"f.{name.replace('__', '.')}": value for name, value in changes.items()}
    return browser.post(address, data=data)


def test_a_study_is_changed_as_a_whole_and_takes_back_nothing_of_others(service: Service, admin: httpx.Client) -> None:
    service.create()
    opened = Form(admin.get("/studies/demo/edit").text)
    wider = _sent(admin, opened, "/studies/demo/edit", space__lr__high="0.5", stopping="median", trials="30")
    assert (wider.status_code, wider.headers["location"]) == (303, "/studies/demo")
    found = _spec(service)
    assert (found["space"]["lr"]["high"], found["space"]["lr"]["low"]) == (0.5, 1e-4)
    assert (found["early_stopping"]["name"], found["budget"]["trials"]) == ("median", 30)

    late = _sent(admin, opened, "/studies/demo/edit", gpu_hours="8")
    assert late.status_code == 409
    assert "somebody has changed the study" in late.text
    assert _spec(service) == found, "nothing was changed"
    again = _sent(admin, Form(late.text), "/studies/demo/edit")
    assert again.status_code == 303
    assert _spec(service) == {**found, "budget": {**found["budget"], "gpu_hours": 8.0}}, "the other one's changes stay"


def test_what_a_study_cannot_become_is_said_beside_its_field(service: Service, admin: httpx.Client) -> None:
    service.create()
    service.create(name="other")
    before, form = _spec(service), Form(admin.get("/studies/demo/edit").text)
    narrower = Form(_sent(admin, form, "/studies/demo/edit", space__lr__high="0.1", trials="many").text)
    assert "valid integer" in narrower.beside("trials")
    narrower = Form(_sent(admin, form, "/studies/demo/edit", space__lr__high="0.1").text)
    assert "a space only grows" in narrower.beside("space-lr-low") + narrower.beside("space-lr-high")
    assert narrower.values["f.space.lr.high"] == "0.1", "what was typed stays"
    bounds = Form(_sent(admin, form, "/studies/demo/edit", stopping="threshold").text)
    assert "give <code>lower</code>" in bounds.html
    assert _spec(service) == before
    assert _sent(admin, bounds, "/studies/demo/edit", early_stopping__lower="0.2").status_code == 303
    assert _spec(service)["early_stopping"]["lower"] == 0.2
    for name, words in (("other", "exists already"), ("a b", "is no name"), ("", "is no name")):
        form = Form(admin.get("/studies/demo/edit").text)
        assert words in Form(_sent(admin, form, "/studies/demo/edit", name=name).text).beside("name")
    renamed = _sent(admin, form, "/studies/demo/edit", name="new-name")
    assert renamed.headers["location"] == "/studies/new-name"
    assert _spec(service, "new-name")["name"] == "new-name"


def test_a_study_that_has_ended_only_gets_another_name(service: Service, admin: httpx.Client) -> None:
    service.create()
    with service.http() as http:
        http.post("/v1/studies/demo/stop").raise_for_status()
    form = Form(admin.get("/studies/demo/edit").text)
    assert [name for name in form.values if name.startswith("f.")] == ["f.name"]
    assert _sent(admin, form, "/studies/demo/edit", trials="99", name="ended").status_code == 303
    assert _spec(service, "ended")["budget"]["trials"] == 20


def test_a_table_is_looked_at_and_imported_once(service: Service, admin: httpx.Client) -> None:
    service.create()
    form = {"form_token": Form(admin.get("/studies/demo/import").text).values["form_token"], "table": TABLE}
    address = "/studies/demo/import"
    unnamed = admin.post(address, data={**form, "look": "yes"})
    assert (unnamed.status_code, "Nothing was imported" in unnamed.text) == (422, True)
    named = {**form, "names": "val_top1=acc", "file": "old.csv"}
    looked = admin.post(address, data={**named, "look": "yes"})
    assert "would import 2 of 3 trials of the table old.csv (2 completed)" in looked.text
    with service.http("read") as http:
        assert http.get("/v1/studies/demo/trials").json()["trials"] == []
        done = admin.post(address, data={**named, "import": "yes"})
        assert "imported 2 as trials 0 to 1" in done.text
        assert "2 were there already" in admin.post(address, data={**named, "import": "yes"}).text
        assert [trial["params"]["lr"] for trial in http.get("/v1/studies/demo/trials").json()["trials"]] == [0.01, 0.02]
    assert admin.post(address, data={**named, "names": "acc"}).status_code == 422


def test_a_trial_is_deleted_by_a_button(service: Service, admin: httpx.Client) -> None:
    study = service.create()
    service.complete(study, 2)
    service.suggest(study, points=[{"lr": 0.2, "dropout": 0.2}])
    page = admin.get("/studies/demo/trials/1").text
    token = Form(page).values["form_token"]
    assert "/trials/1/delete" in page
    assert "/trials/2/delete" not in admin.get("/studies/demo/trials/2").text, "it has not ended"
    assert admin.post("/studies/demo/trials/1/delete", data={"form_token": token}).status_code == 303
    with service.http("read") as http:
        assert http.get("/v1/studies/demo/best").json()["number"] == 0
    assert admin.post("/studies/demo/trials/2/delete", data={"form_token": token}).status_code == 409


def test_a_form_that_was_opened_before_the_space_grew_changes_only_what_was_typed(
    service: Service, admin: httpx.Client
) -> None:
    service.create()
    form = Form(admin.get("/studies/demo/edit").text)
    with service.database.transaction() as connection:
        edits.change(connection, "demo", {"space": {"lr": {"low": 1e-5}}}, actor="ann")
    form.values["revision"] = "2"  # as if it had been loaded since
    assert _sent(admin, form, "/studies/demo/edit", space__lr__high="0.4").status_code == 303
    lr = _spec(service)["space"]["lr"]
    assert (lr["low"], lr["high"]) == (1e-5, 0.4)
