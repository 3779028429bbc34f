"""What is wrong with one study costs that study, says so on it, and leaves the workers of all others alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import text

from hpo.optimizer.ask_tell import Optimizer
from hpo.service import decision, fallback, finishing
from hpo.spec import StudySpec
from hpo.store import Database, study_fault
from hpo.store.study_fault import Part

from .service import Service, claim_body, finished, measured, serving

BROKEN, SOUND = "broken", "sound"


@pytest.fixture(autouse=True)
def without_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first round, at the start of a server, would come at any moment of a test; tests do what they need of it."""
    monkeypatch.setattr("api.app.upkeep", lambda *_, **__: nullcontext())


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class DefectError(Exception):
    """Something that nobody foresaw."""


def breaking(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of an object with a spec, or of a spec, that fails for one study."""

    def broken(self: Any, *arguments: Any, **options: Any) -> Any:
        spec = self if isinstance(self, StudySpec) else self.spec
        if spec.name == BROKEN:
            raise DefectError("a step of 1e-300")
        return method(self, *arguments, **options)

    return broken


def make_unreadable(service: Service) -> None:
    with service.database.transaction() as connection:
        connection.execute(text("UPDATE study SET spec = spec || '{\"of_a_later_release\": 1}' WHERE name = 'broken'"))


def events(service: Service, name: str = BROKEN) -> list[tuple[str, str]]:
    """Return the kinds and sentences of what happened to a study and is not about a trial."""
    query = "SELECT kind, COALESCE(detail ->> 'message', detail ->> 'reason') FROM event "
    where = (
        "WHERE study_id = (SELECT id FROM study WHERE name = :name) AND kind <> 'study.created' AND trial_id IS NULL"
    )
    with service.database.transaction() as connection:
        return [(row[0], row[1]) for row in connection.execute(text(query + where + " ORDER BY id"), {"name": name})]


def test_a_study_without_suggestions_leaves_the_others_theirs(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fallback, "SETBACK_SECONDS", 0.0)
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        service.create(name=BROKEN)
        service.create(name=SOUND)
        with monkeypatch.context() as patched:
            patched.setattr(Optimizer, "quick", breaking(Optimizer.quick))
            for place in range(3):
                assert http.post("/v1/leases", json=claim_body(f"w{place}")).json()["study"] == SOUND
            assert http.post("/v1/leases", json=claim_body("w3", study=BROKEN)).status_code == 204
            sentence = "no configuration can be proposed without an optimizer: DefectError: a step of 1e-300"
            assert http.get(f"/v1/studies/{BROKEN}").json()["degraded"] == sentence
            assert http.get(f"/v1/studies/{SOUND}").json()["degraded"] is None
            assert caplog.text.count("no suggestion without an optimizer") == 1, "said once"
            with database.transaction() as connection:
                owners = connection.execute(text("SELECT generator_owner FROM study")).scalars().all()
            assert owners == [None, None], "an optimizer could take the study over at once"
        assert http.post("/v1/leases", json=claim_body("w4", study=BROKEN)).status_code == 200
        assert http.get(f"/v1/studies/{BROKEN}").json()["degraded"] is None
        assert events(service) == [("study.fault", sentence), ("study.fault_over", sentence)]


def test_a_study_that_has_just_failed_is_left_alone_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, asked = iter([0.0, 10.0, 29.9, 30.0, 59.0, 60.0]), []
    clock = Clock()
    tried = fallback.Fallback(after_seconds=0.0, clock=clock)

    def fail(self: Optimizer, n: int = 1) -> None:
        asked.append(clock.now)
        raise DefectError

    monkeypatch.setattr(Optimizer, "quick", fail)
    with serving(database) as service:
        service.create()
    for clock.now in times:
        with database.transaction() as connection:
            assert not tried.suggest(connection, None)
    assert asked == [0.0, 30.0, 60.0]


@pytest.mark.parametrize("fault", ["its spec is of a later release", "a trial has no configuration"])
def test_a_study_whose_trials_cannot_be_handed_out_is_paused_and_says_why(
    fault: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = service.create(name=BROKEN)
    service.suggest(broken, 2)
    service.suggest(service.create(name=SOUND), 2)
    if fault == "a trial has no configuration":
        monkeypatch.setattr(StudySpec, "trial_config", breaking(StudySpec.trial_config))
        reason = "trial 0 has no configuration: DefectError: a step of 1e-300"
    else:
        make_unreadable(service)
        reason = "the study 'broken' cannot be read by this release"
    with service.http() as http:
        for place in range(2):
            assert http.post("/v1/leases", json=claim_body(f"w{place}")).json()["study"] == SOUND
        assert http.post("/v1/leases", json=claim_body("w3", study=BROKEN)).status_code == 204
        assert SOUND in [study["name"] for study in http.get("/v1/studies").json()]
    (event,) = events(service)
    assert event[0] == "study.paused"
    assert event[1].startswith(reason)
    with service.database.transaction() as connection:
        row = connection.execute(
            text(
                "SELECT state, state_reason, (SELECT sum(attempt) FROM trial WHERE study_id = study.id) AS claims "
                "FROM study WHERE name = 'broken'"
            )
        ).one()
    assert (row.state, row.claims) == ("paused", 0)
    assert row.state_reason == event[1]


def test_upkeep_pauses_an_unreadable_study_once_and_settles_the_others(service: Service) -> None:
    service.create(name=BROKEN)
    service.complete(service.create(name=SOUND, budget={"trials": 1}), 1)
    with service.database.transaction() as connection:
        connection.execute(text("UPDATE study SET state = 'active', finished_at = NULL"))
    make_unreadable(service)
    assert [finishing.end_finished_studies(service.database) for _ in range(2)] == [[SOUND], []]
    (event,) = events(service)
    assert event[0] == "study.paused"
    assert event[1].startswith("the study 'broken' cannot be read by this release (")


def test_what_runs_of_an_unreadable_study_keeps_what_it_measured_and_ends(service: Service) -> None:
    service.suggest(service.create(name=BROKEN, early_stopping={"name": "median", "startup_trials": 1}), 1)
    with service.http() as http:
        lease = http.post("/v1/leases", json=claim_body()).json()
        make_unreadable(service)
        path = f"/v1/trials/{lease['trial_id']}"
        reply = http.post(f"{path}/reports", json=measured(lease, 1, 0.5, val_clips=20))
        assert reply.json() == {"decision": "continue"}, reply.text
        assert http.post(f"{path}/finish", json=finished(lease, 0.5)).status_code == 200
        assert http.get("/v1/health").status_code == 200


def test_a_stopping_rule_that_fails_lets_the_trial_continue(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service.suggest(service.create(early_stopping={"name": "median", "startup_trials": 1}), 1)

    def fail(*_: object) -> None:
        raise DefectError("no curve")

    with service.http() as http:
        lease = http.post("/v1/leases", json=claim_body()).json()
        path = f"/v1/trials/{lease['trial_id']}/reports"
        with monkeypatch.context() as patched:
            patched.setattr(decision, "judge", fail)
            for step in (1, 2, 3):
                assert http.post(path, json=measured(lease, step, 0.5)).json() == {"decision": "continue"}
        sentence = "the stopping rule cannot decide: DefectError: no curve"
        assert http.get("/v1/studies/demo").json()["degraded"] == sentence
        assert len(events(service, "demo")) == 1
        assert caplog.text.count("continues") == 1, "said once"
        assert http.post(path, json=measured(lease, 4, 0.5)).json() == {"decision": "continue"}
        assert http.get("/v1/studies/demo").json()["degraded"] is None
    assert events(service, "demo") == [("study.fault", sentence), ("study.fault_over", sentence)]


def test_a_study_that_cannot_be_settled_says_so_until_it_can(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = service.create(name=BROKEN, budget={"trials": 1}), service.create(name=SOUND, budget={"trials": 1})
    for study_id in (broken, sound):
        service.complete(study_id, 1)
    with service.database.transaction() as connection:
        connection.execute(text("UPDATE study SET state = 'active', finished_at = NULL"))
    settle = finishing._settle

    def fail(connection: Any, found: Any) -> bool:
        if found.name == BROKEN:
            raise DefectError("no end")
        return settle(connection, found)

    with monkeypatch.context() as patched:
        patched.setattr(finishing, "_settle", fail)
        assert [finishing.end_finished_studies(service.database) for _ in range(3)] == [[SOUND], [], []]
    assert caplog.text.count("could not be settled") == 1
    assert finishing.end_finished_studies(service.database) == [BROKEN]
    assert [kind for kind, _ in events(service)][-2:] == ["study.completed", "study.fault_over"]


def test_parts_that_fail_by_turns_are_said_once_each(service: Service) -> None:
    study_id = service.create()

    def note(part: Part, error: Exception) -> bool:
        return study_fault.note_apart(service.database, study_id, part, error)

    def over(part: Part) -> None:
        with service.database.transaction() as connection:
            fault = connection.execute(text("SELECT fault FROM study")).scalar_one()
            study_fault.over(connection, study_id, fault, part)

    news = [
        note(part, DefectError(f"{part.name.lower()} at trial {turn}"))
        for turn in range(3)
        for part in (Part.STOPPING, Part.OPTIMIZER)
    ]
    assert news == [True, True, False, False, False, False]
    assert note(Part.STOPPING, ValueError("another class")), "is another fault"
    with service.http() as http:
        assert http.get("/v1/studies/demo").json()["degraded"] == (
            "the optimizer cannot propose configurations: DefectError: optimizer at trial 2; "
            "the stopping rule cannot decide: ValueError: another class"
        )
        over(Part.OPTIMIZER)
        over(Part.SETTLING)
        degraded = http.get("/v1/studies/demo").json()["degraded"]
        assert degraded == "the stopping rule cannot decide: ValueError: another class"
        over(Part.STOPPING)
        assert http.get("/v1/studies/demo").json()["degraded"] is None
    assert [kind for kind, _ in events(service, "demo")] == ["study.fault"] * 3 + ["study.fault_over"] * 2
