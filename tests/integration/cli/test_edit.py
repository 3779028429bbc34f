"""`hpo study edit`: another rule, a wider space and another name; nothing that trials or others rely on is lost."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.store import earlier, studies, trials

from ..api.service import Service, claim_body
from .conftest import Command


def _words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def _study(service: Service) -> Any:
    with service.http() as http:
        return http.get("/v1/studies/demo").json()


def test_space_and_rule_of_a_study_change_and_its_record_says_so(service: Service, hpo: Command) -> None:
    study_id = service.create(
        space={
            "lr": {"type": "float", "low": 1e-3, "high": 0.1, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        }
    )
    service.complete(study_id, 2)
    before = _study(service)
    said = hpo(
        service, "study", "edit", "demo", "--widen", "lr=1e-5:0.3", "--widen", "dropout=:0.9", "--stopping", "median"
    )
    assert (said.code, "lr: from 1e-05 to 0.3" in said.out, "dropout: from 0 to 0.9" in said.out) == (0, True, True), (
        said
    )
    with service.database.transaction() as connection:
        found = studies.get(connection, "demo")
        for record in trials.records(connection, study_id):
            found.spec.check_params(record.params)
    assert found.revision == before["revision"] + 1
    assert found.spec.early_stopping.name == "median"
    assert found.spec.space["lr"].contains(2e-5)
    # As an optimizer would: what only the wider space has can be proposed and trained.
    [wide] = service.suggest(study_id, points=[{"lr": 2e-5, "dropout": 0.9}])
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
    assert (lease["number"], lease["config"]["lr"]) == (wide.number, 2e-5)
    log = hpo(service, "logs", "demo").out
    assert "changed early stopping: median; the space: lr (low 1e-05, high 0.3), dropout (high 0.9)" in _words(log)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--widen", "lr=1e-3:0.3"], "a space only grows"),
        (["--widen", "rate=1:2"], "no such parameter"),
        (["--widen", "lr"], "NAME=LOW:HIGH"),
        (["--widen", "lr=a:b"], "not a number"),
        (["--stopping", "{name: nonsense}"], "early_stopping"),
        (["--stopping", "["], "no YAML"),
        (["--trials", "30", "--revision", "7"], "somebody has changed"),
        (["--rename", "other"], "exists already"),
        (["--rename", "no name"], "name"),
        ([], "say what changes"),
    ],
)
def test_what_cannot_change_is_refused_in_a_sentence(
    service: Service, hpo: Command, options: list[str], expected: str
) -> None:
    service.create()
    service.create(name="other")
    before = _study(service)
    said = hpo(service, "study", "edit", "demo", *options)
    assert said.code != 0
    assert expected in _words(said.err)
    assert "Traceback" not in said.err
    assert _study(service) == before


def test_a_study_that_is_renamed_is_found_under_its_new_name_alone(service: Service, hpo: Command) -> None:
    study_id = service.create()
    service.complete(study_id, 3)
    service.create(name="heir", optimizer={"name": "ax", "warm_start": ["demo"]})
    said = hpo(service, "study", "edit", "demo", "--rename", "first", "--note", "renamed")
    assert (said.code, "is called first now" in said.out) == (0, True), said
    assert hpo(service, "study", "show", "demo").code != 0
    assert "note: renamed" in hpo(service, "study", "show", "first").out
    with service.database.transaction() as connection:
        heir = studies.get(connection, "heir")
        assert heir.spec.optimizer.warm_start == ["first"]
        assert earlier.counts(connection, heir.id, heir.spec) == {"first": 3}
    service.create(name="demo")
    body = claim_body(study="demo")
    with service.http("worker") as http:
        assert http.post("/v1/leases", json=body).status_code == 204
    refused = hpo(service, "study", "edit", "demo", "--rename", "third")
    assert (refused.code != 0, "a worker takes trials of 'demo' by this name (w1)" in _words(refused.err)) == (
        True,
        True,
    )


def test_a_line_end_of_a_form_is_one_character_of_a_note(service: Service) -> None:
    service.create()
    with service.http() as http:
        lines = "a\r\n" * 10_000
        assert http.patch("/v1/studies/demo", json={"note": lines}).json()["note"] == ("a\n" * 10_000).strip()
        assert http.patch("/v1/studies/demo", json={"note": "a\n" * 10_001}).status_code == 422
