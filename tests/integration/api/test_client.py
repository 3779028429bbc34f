"""The typed client: every user route through it, and the errors it gives back."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from hpo.client import Client, UnreachableError
from hpo.errors import (
    AuthenticationError,
    ConflictError,
    GuessError,
    HpoError,
    NotFoundError,
    PermissionDeniedError,
    SetupError,
    SpecError,
    StudyExistsError,
)

from .service import Service, claim_body, spec


def test_a_study_from_creation_to_deletion(service: Service) -> None:
    with Client(service.url + "/", service.tokens["admin"]) as client:
        assert client.url == service.url
        assert client.create_study(spec())["state"] == "active"
        assert [study["name"] for study in client.studies()] == ["demo"]
        assert client.study("demo")["trial_counts"] == {}
        assert client.pause_study("demo")["state"] == "paused"
        assert client.resume_study("demo")["state"] == "active"
        assert client.events("demo")[-1]["kind"] == "study.resumed"
        assert client.stop_study("demo")["state"] == "stopped"
        assert client.delete_study("demo")["hosts"] == []
        assert client.studies() == []


def test_results(past_service: Service) -> None:
    with Client(past_service.url, past_service.tokens["read"]) as client:
        assert [trial["number"] for trial in client.trials("demo")] == list(range(10))
        assert [trial["number"] for trial in client.trials("demo", states=["failed"])] == [4]
        best = client.best("demo")
        assert client.trial("demo", best["number"])["curve"] == best["curve"]
        assert client.export("demo")["trial"] == best["number"]
        assert client.export("demo", trial=1)["trial"] == 1
        assert client.curves("demo", metric="val_loss")["metric"] == "val_loss"
        assert {worker["name"] for worker in client.workers()} == {"worker-0", "worker-1", "worker-2"}


def test_trials_are_collected_over_pages(past_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.client.calls.TRIALS_PER_PAGE", 3)
    with Client(past_service.url, past_service.tokens["read"]) as client:
        assert [trial["number"] for trial in client.trials("demo")] == list(range(10))


def test_tokens_and_login_links(service: Service) -> None:
    with Client(service.url, service.tokens["admin"]) as client:
        made = client.create_token("gpu-1", ["worker"], expires_in_hours=1)
        with Client(service.url, made["token"]) as other:
            assert other.studies() == []
            with pytest.raises(PermissionDeniedError, match="'admin'"):
                other.create_study(spec())
        (row,) = [row for row in client.tokens() if row["name"] == "gpu-1"]
        client.revoke_token(row["id"])
        link = client.login_link()
    assert httpx.get(link).headers["location"] == "/"
    with Client(service.url, made["token"]) as other, pytest.raises(AuthenticationError, match="hpo token show"):
        other.studies()


def test_cancel(service: Service) -> None:
    service.suggest(service.create())
    with service.http() as http, Client(service.url, service.tokens["admin"]) as client:
        http.post("/v1/leases", json=claim_body())
        assert client.cancel_trial("demo", 0)["state"] == "running"


def test_starting_from_an_earlier_study(service: Service) -> None:
    service.complete(service.create(), 3)
    with Client(service.url, service.tokens["admin"]) as client:
        made = client.create_study(spec(name="next", optimizer={"warm_start": ["demo"]}))
        assert made["earlier_trials"] == client.study("next")["earlier_trials"] == {"demo": 3}
        assert client.study("demo")["earlier_trials"] == {}
        with pytest.raises(SpecError, match=r"optimizer\.warm_start\[0\]: there is no study 'demi'"):
            client.create_study(spec(name="other", optimizer={"warm_start": ["demi"]}))


def test_asking_for_configurations(service: Service) -> None:
    service.create(budget={"trials": 3})
    with Client(service.url, service.tokens["admin"]) as client:
        guesses = [{"lr": 0.01}, {"lr": 0.02, "dropout": 0.5}]
        assert client.enqueue("demo", guesses) == {"added": 2, "waiting": 2}
        assert client.enqueue("demo", guesses) == {"added": 0, "waiting": 2}, "a repeated call changes nothing"
        assert client.study("demo")["guesses_waiting"] == 2
        with pytest.raises(GuessError, match=r"guesses\[0\]\.lr: 7\.5 is not in the space"):
            client.enqueue("demo", [{"lr": 7.5}])
        with pytest.raises(SpecError, match="guesses"):
            client.enqueue("demo", [])
        with pytest.raises(SpecError, match=r"guesses.*`lr: {}` holds no settings"):
            client.enqueue("demo", [{"lr": {}}])
        wrong: tuple[Any, ...] = (None, [0.1], {"x": 1})
        for value in wrong:
            with pytest.raises(GuessError) as caught:
                client.enqueue("demo", [{"lr": value, "dropout": 7}])
            assert len(caught.value.issues) <= 2, "one sentence for each value"
        with pytest.raises(ConflictError, match="room for 1 more"):
            client.enqueue("demo", [{"lr": 0.03}, {"lr": 0.04}])


def test_errors_come_back_as_the_classes_that_were_raised(service: Service) -> None:
    with Client(service.url, service.tokens["admin"]) as client:
        client.create_study(spec())
        with pytest.raises(StudyExistsError, match="'demo'"):
            client.create_study(spec())
        with pytest.raises(SpecError) as wrong:
            client.create_study(spec(name="x", budget={"trails": 1}))
        assert "budget.trails" in [issue.path for issue in wrong.value.issues]
        with pytest.raises(NotFoundError, match="did you mean 'demo'"):
            client.study("dmeo")
        client.stop_study("demo")
        with pytest.raises(ConflictError, match="cannot become"):
            client.resume_study("demo")
        with pytest.raises(SpecError) as request:
            client.events("demo", limit=0)
        assert [issue.path for issue in request.value.issues] == ["limit"]
    with Client(service.url, None) as client:
        with pytest.raises(AuthenticationError):
            client.studies()
        assert client.health()["status"] == "ok"


@pytest.mark.parametrize("name", ["../tokens", "a/b", "", "..", "%2e%2e", "a?b#c", "\x00"])
def test_a_name_cannot_leave_its_place_in_the_path(empty_service: Service, name: str) -> None:
    with Client(empty_service.url, empty_service.tokens["admin"]) as client:
        for call in (client.pause_study, client.delete_study, client.best):
            with pytest.raises(HpoError, match=r"there is no|nothing at|does not take"):
                call(name)


def test_an_address_where_nothing_answers_is_explained() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with Client(url) as client, pytest.raises(UnreachableError, match=f"nothing answers at {url}; start it with"):
            client.studies()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://[", "http://"])
def test_an_invalid_address_raises_a_documented_error(url: str) -> None:
    with pytest.raises((SetupError, UnreachableError)), Client(url) as client:
        client.studies()


def test_an_answer_that_is_not_from_the_api_is_explained() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404, html="<h1>No such page</h1>"))
    with (
        Client("http://elsewhere", transport=transport) as client,
        pytest.raises(SetupError, match="check the address"),
    ):
        client.studies()


def test_the_token_is_in_no_repr() -> None:
    assert "hpo_secret" not in repr(Client("http://x", "hpo_secret"))
