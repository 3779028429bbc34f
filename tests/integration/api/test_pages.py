"""What the pages say: the numbers of the store, in safe HTML, to those who may see it; and what their buttons do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape, unescape
from itertools import islice
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import text

from api.auth import create_login_link
from api.pages import assets
from hpo.answer import answer
from hpo.service.finishing import end_finished_studies
from hpo.spec import StudySpec, stored_spec
from hpo.store import Database, answers, overview, studies, tokens
from hpo.trial import StudyState

from .service import KEY, Service, claim_body, fence, finished, measured, serving

NASTY = "<img src=x onerror=alert(1)>"
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@contextmanager
def _logged_in(service: Service, scope: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30, headers=BROWSER) as browser:
        browser.get(create_login_link(service.database, KEY, service.url, token=service.tokens[scope]))
        yield browser


@pytest.fixture
def admin(service: Service) -> Iterator[httpx.Client]:
    """A browser that an administrator has logged in."""
    with _logged_in(service, "admin") as browser:
        yield browser


def _form_token(html: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', html)
    assert found is not None, "the page has a form"
    return found[1]


def _text(html: str) -> str:
    """Return what a person reads, with single spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)).split())


def _figure(html: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_numbers_of_the_pages_are_those_of_the_store(past_service: Service) -> None:
    with past_service.http("read") as http:
        best = http.get("/v1/studies/demo/best").json()
        study = http.get("/v1/studies/demo").json()
        answer = http.get("/v1/studies/demo/answer").json()
        known = {trial["number"]: trial for trial in http.get("/v1/studies/demo/trials").json()["trials"]}
        home, page = http.get("/").text, http.get("/studies/demo").text
    believed = f"{best['evidence']['believed']:.4g}"
    assert f"{believed} ± {best['evidence']['sd']:.2g} · trial {best['number']}" in _text(home)
    assert "8 of 20 trials" in _text(home)
    assert f"{believed} ± {best['evidence']['sd']:.2g} trial {best['number']}" in _text(page)
    for place, one in enumerate(answer["configurations"], start=1):
        estimate = one["estimates"]["val_top1"]
        row = f"{place} {one['trials'][0]}" + (" stopped" if not one["completed"] else "")
        assert f"{row} {estimate['believed']:.4g} ± {estimate['sd']:.2g} {estimate['observed']:.4g}" in _text(page)
    assert study["trial_counts"]["stopped"] == 2
    assert "2 trials, which saved about" in _text(page)
    progress = _figure(page, "progress-data")
    assert progress["numbers"] == [number for number, trial in known.items() if trial["metrics"]]
    assert progress["values"] == [
        pytest.approx(known[number]["metrics"]["val_top1"], rel=1e-5) for number in progress["numbers"]
    ]
    assert progress["best"] == [max(progress["values"][: place + 1]) for place in range(len(progress["values"]))]
    curves = _figure(page, "curves-data")
    assert {line["number"] for line in curves["groups"]["top1"]} == {best["number"], 8}
    running = next(line for line in curves["groups"]["top1"] if line["number"] == 8)
    assert (running["steps"], running["values"][-1]) == (
        [1, 2, 3, 4],
        pytest.approx(known[8]["last_metrics"]["val_top1"], rel=1e-5),
    )
    assert "trial 4 failed on worker-1: oom" in _text(page)
    assert "CUDA out of memory" in page


def test_a_trial_stands_beside_the_best_one(past_service: Service) -> None:
    with past_service.http("read") as http:
        best = http.get("/v1/studies/demo/best").json()
        seventh = http.get("/v1/studies/demo/trials/6").json()
        html, of_best = http.get("/studies/demo/trials/6").text, http.get(f"/studies/demo/trials/{best['number']}").text
        failed, waiting = http.get("/studies/demo/trials/4").text, http.get("/studies/demo/trials/9").text
        assert http.get("/studies/demo/trials/77").status_code == 404
    for name in ("lr", "dropout"):
        assert f"{name} {seventh['params'][name]:.4g} {best['params'][name]:.4g}" in _text(html)
    assert f"val_top1 {seventh['metrics']['val_top1']:.4g}" in _text(html)
    assert "4 of 10" in _text(html)
    assert "/c/6.pt" in html
    assert "3.11" in html
    assert "trial 6 was stopped early" in _text(html)
    curves = _figure(html, "curves-data")["groups"]["top1"]
    assert [(line["number"], line["best"]) for line in curves] == [(6, False), (best["number"], True)]
    assert curves[0]["values"] == [
        pytest.approx(seventh["curve"][str(step)]["val_top1"], rel=1e-5) for step in (1, 2, 3, 4)
    ]
    assert "the best so far" in of_best
    assert "It failed: oom CUDA out of memory" in _text(failed)
    assert "No worker has begun it." in _text(waiting)


def test_the_buttons_of_a_trial(service: Service, admin: httpx.Client) -> None:
    study_id = service.create()
    service.complete(study_id, 1)
    service.suggest(study_id, points=[{"lr": 0.2, "dropout": 0.2}])
    token = _form_token(admin.get("/studies/demo/trials/0").text)
    again = admin.post("/studies/demo/trials/0/replicate", data={"form_token": token})
    assert again.headers["location"] == "/studies/demo/trials/2"
    assert "trains trial 0 again" in _text(admin.get("/studies/demo/trials/2").text)
    assert admin.post("/studies/demo/trials/1/cancel", data={"form_token": token}).status_code == 303
    with service.http("read") as http:
        assert http.get("/v1/studies/demo/trials/1").json()["state"] == "withdrawn"
    with service.http("worker") as http:
        assert http.post("/v1/leases", json=claim_body()).raise_for_status().json()["number"] == 2
    assert "/trials/2/cancel" in admin.get("/studies/demo/trials/2").text
    assert admin.post("/studies/demo/trials/2/cancel", data={"form_token": token}).status_code == 303
    page = admin.get("/studies/demo/trials/2").text
    assert ("It is being cancelled" in page, "/trials/2/cancel" in page) == (True, False), "nobody presses it twice"


def test_the_log_of_a_trial_is_text(service: Service, admin: httpx.Client) -> None:
    service.suggest(service.create(), 1)
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        part = f"epoch 1\r{NASTY}\n"
        body = {**fence(lease), "start": 0, "stop": len(part), "text": part}
        http.post(f"/v1/trials/{lease['trial_id']}/log", json=body).raise_for_status()
    html = admin.get("/studies/demo/trials/0").text
    assert NASTY not in html
    assert "epoch 1\n&lt;img src=x onerror=alert(1)&gt;" in html


def test_what_others_wrote_is_text_on_every_page(service: Service, admin: httpx.Client) -> None:
    study_id = service.create(name="demo")
    service.suggest(study_id, 2)
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body(NASTY)).raise_for_status().json()
        body = {"outcome": "failed", "failure_kind": "error", "failure_message": f"x\n{NASTY}\u202e</script>"}
        url = f"/v1/trials/{lease['trial_id']}"
        report = measured(lease, 1, 0.5, **{"val_</script><b>": 0.25})
        http.post(f"{url}/reports", json=report)
        http.post(f"{url}/finish", json={**fence(lease), **body}).raise_for_status()
        http.post("/v1/leases", json=claim_body(NASTY)).raise_for_status()
    for path in ("/", "/workers", "/studies/demo", "/studies/demo/trials/0", "/studies/demo/trials/1"):
        html = admin.get(path).text
        assert NASTY not in html, path
        assert "\u202e" not in html, path
        assert html.count("</script>") == html.count("<script"), path
    assert "&lt;img src=x onerror=alert(1)&gt;" in admin.get("/studies/demo").text


def test_every_page_lets_nothing_in_from_elsewhere(past_service: Service) -> None:
    with past_service.http("read") as http:
        for path in ("/", "/workers", "/studies/demo", "/studies/demo/trials/0", "/login", "/docs", "/nonsense"):
            answer = http.get(path, headers=BROWSER)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';"), path
            assert ("unsafe" in policy) == (path == "/docs")
            assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", answer.text), path
            assert not re.search(r"<script(?![^>]*(?: src=| type=\"application/json\"))", answer.text), path
            assert " style=" not in answer.text, path
            for asset in re.findall(r'"(/assets/[^"]+)"', answer.text):
                found = http.get(asset)
                assert (found.status_code, "immutable" in found.headers["cache-control"]) == (200, True), asset


def test_the_files_of_the_pages_come_packed_or_plain(empty_service: Service) -> None:
    with empty_service.http(None) as http:
        for name in assets.names():
            packed = http.get(f"/assets/{name}", headers={"accept-encoding": "gzip"})
            plain = http.get(f"/assets/{name}", headers={"accept-encoding": "identity"})
            assert packed.headers["content-encoding"] == "gzip"
            assert "content-encoding" not in plain.headers
            assert packed.content == plain.content == assets.read(name).content  # type: ignore[union-attr]  # the name is of an asset
            assert plain.headers["cache-control"] == "no-store", "its address does not name the content"
        assert http.get("/assets/..%2Fframe.py").status_code == 404


def test_there_is_a_hint_where_there_is_nothing(service: Service, admin: httpx.Client) -> None:
    assert "There is no study yet" in _text(admin.get("/").text)
    assert "hpo study create" in admin.get("/").text
    service.create()
    for path in ("/", "/studies/demo"):
        assert "No worker is connected." in _text(admin.get(path).text), path
    service.create(name="large", resources={"gpus": 2})
    with service.http("worker") as http:
        http.post("/v1/leases", json=claim_body())
    for path in ("/", "/studies/demo"):
        assert "No worker is connected." not in _text(admin.get(path).text), path
    assert "no worker with 2 GPUs is connected" in _text(admin.get("/").text)
    large = _text(admin.get("/studies/large").text)
    assert (
        "No worker with 2 GPUs is connected. Start one on a machine that reaches this server: hpo-worker --gpus 0,1"
        in large
    )


def test_the_buttons_steer_the_study(service: Service, admin: httpx.Client) -> None:
    service.complete(service.create(), 3)
    for action, state in (("pause", "paused"), ("resume", "active"), ("finalists", "active"), ("stop", "stopped")):
        html = admin.get("/studies/demo").text
        assert f'action="/studies/demo/{action}"' in html
        answer = admin.post(f"/studies/demo/{action}", data={"form_token": _form_token(html)})
        assert (answer.status_code, answer.headers["location"]) == (303, "/studies/demo")
        with service.database.transaction() as connection:
            assert studies.get(connection, "demo").state == state
    with service.database.transaction() as connection:
        found = studies.get(connection, "demo")
        assert found.finalists is not None
        actors = {one.event.actor for one in overview.latest_events(connection, found.id, limit=9)}
    assert "admin of the test" in actors
    html = admin.get("/studies/demo").text
    assert not re.search(r'action="/studies/demo/(pause|resume|stop)"', html)
    refused = admin.post("/studies/demo/resume", data={"form_token": _form_token(html)})
    assert refused.status_code == 409
    assert "the study &#39;demo&#39; is stopped and cannot become active" in refused.text


def test_a_reader_sees_no_buttons_and_can_press_none(service: Service) -> None:
    service.complete(service.create(), 2)
    with _logged_in(service, "admin") as admin, _logged_in(service, "read") as reader:
        token = _form_token(admin.get("/studies/demo").text)
        html = reader.get("/studies/demo").text
        assert re.findall(r'<form[^>]* action="([^"]*)"', html) == ["/logout"]
        assert "form_token" not in html
        for path in ("/studies/demo/pause", "/studies/demo/stop", "/workers/release"):
            assert reader.post(path, data={"form_token": token}).status_code == 403
    with service.database.transaction() as connection:
        assert studies.get(connection, "demo").state == "active"


def test_a_form_needs_its_own_session_and_this_site(service: Service, admin: httpx.Client) -> None:
    service.create()
    own = _form_token(admin.get("/studies/demo").text)
    with _logged_in(service, "admin") as other:
        foreign = _form_token(other.get("/studies/demo").text)
    assert foreign != own
    for data in ({}, {"form_token": ""}, {"form_token": foreign}):
        assert admin.post("/studies/demo/pause", data=data).status_code == 403
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
    ):
        assert admin.post("/studies/demo/pause", data={"form_token": own}, headers=headers).status_code == 401
    with service.database.transaction() as connection:
        assert studies.get(connection, "demo").state == "active"
    assert admin.post("/v1/studies/demo/pause", data={"form_token": own}).status_code == 401, "cookies open pages alone"
    with service.http() as http:
        assert http.post("/studies/demo/pause").status_code == 303, "a program needs its token, and no form"


def test_a_worker_in_quarantine_is_released_from_its_page(service: Service, admin: httpx.Client) -> None:
    service.suggest(service.create(), 4)
    with service.http("worker") as http:
        for _ in range(2):
            lease = http.post("/v1/leases", json=claim_body("sick")).raise_for_status().json()
            body = {**fence(lease), "reason": "crashed", "fault": "storage", "message": "full"}
            http.post(f"/v1/trials/{lease['trial_id']}/release", json=body).raise_for_status()
    html = admin.get("/workers").text
    assert "in quarantine" in html
    token = _form_token(html)
    many = {f"field{place}": "x" for place in range(1001)}
    for wrong in ({}, {"name": "\0"}, {"host": "a\0b"}):
        assert admin.post("/workers/release", data={"form_token": token, **wrong}).status_code in (403, 404)
    for wrong, problem in (
        ({"name": "x" * 6_000_000}, "the form has 6,000,081 bytes, and at most 262,144 are read"),
        ({"name": "sick", **many}, "the form has more than 1,000 fields"),
    ):
        answer = admin.post("/workers/release", data={"form_token": token, **wrong})
        assert (answer.status_code, problem in answer.text) == (413, True), answer.text
    for raw in (b"\xff\xfe", b"form_token=%ff&name=%00", b"{}", b"=&=&;"):
        assert admin.post("/workers/release", content=raw).status_code == 403
    assert admin.post("/workers/release", data={"form_token": token, "name": "sick"}).status_code == 303
    assert "in quarantine" not in admin.get("/workers").text


def test_limits_that_no_study_can_have_are_named_and_change_nothing(service: Service, admin: httpx.Client) -> None:
    service.create()
    token = _form_token(admin.get("/studies/demo").text)
    for field, value in (
        ("trials", "9" * 4000),
        *((name, value) for name in ("trials", "max_failed") for value in ("x", "9" * 5000, "0", "1.5")),
        *(
            (name, value)
            for name in ("gpu_hours", "wall_hours")
            for value in ("nan", "inf", "1e999", "1e306", "-1", "\0")
        ),
    ):
        for action in ("budget", "reopen"):
            answer = admin.post(f"/studies/demo/{action}", data={"form_token": token, field: value})
            expected = (409, 422) if action == "reopen" else (422,)
            assert answer.status_code in expected, (action, field, value[:9], answer.status_code)
            assert len(answer.content) < 20_000
    with service.database.transaction() as connection:
        assert studies.get(connection, "demo").spec.budget.trials == 20


def test_a_wrong_address_is_a_page_in_a_browser_and_a_problem_elsewhere(past_service: Service) -> None:
    with past_service.http("read") as http:
        for path in ("/nonsense", "/studies/nonsense", "/v1/studies/nonsense", "/studies/%00", "/assets/x"):
            page = http.get(path, headers=BROWSER)
            assert page.status_code == 404, path
            assert page.headers["content-type"].startswith("text/html"), path
            assert "There is no such page" in page.text
            assert http.get(path).headers["content-type"].startswith("application/problem+json")
        assert "did you mean &#39;demo&#39;?" in http.get("/studies/demos", headers=BROWSER).text
        assert http.head("/nonsense", headers=BROWSER).status_code == 404
    with past_service.http(None) as http:
        refused = http.get("/v1/studies", headers=BROWSER)
        assert (refused.status_code, 'href="/login"' in refused.text) == (401, True)
        assert refused.headers["www-authenticate"].startswith("Bearer")


def test_the_pages_do_without_the_dashboard(database: Database) -> None:
    with serving(database, dashboard=False) as service, service.http() as http:
        assert 'href="/dashboard"' not in http.get("/").text


@pytest.mark.parametrize("path", ["/live", "/studies/demo/live"])
def test_an_open_page_hears_that_something_is_new_as_long_as_its_token_is_valid(
    service: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.browser.live.POLL_SECONDS", 0.02)
    service.suggest(service.create(), 1)
    with service.http("read") as http, http.stream("GET", path) as stream:
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("data:"))
        with service.database.transaction() as connection:
            studies.set_state(connection, "demo", StudyState.PAUSED, actor="test")
        assert next(line for line in lines if line.startswith("data:")) != first
        with service.database.transaction() as connection:
            tokens.revoke(connection, tokens.verify(connection, service.tokens["read"], KEY).id)
        assert len(list(islice(lines, 400))) < 400, "it ends by itself"


def test_the_pages_of_a_large_study_say_of_how_many_results_their_answer_is(
    service: Service, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "LARGE", 1)
    monkeypatch.setattr(answers, "_REST", 1e9)
    monkeypatch.setattr(answers, "_beside", {})
    study_id = service.create(budget={"trials": 90})
    service.complete(study_id, 3)
    first = admin.get("/").text
    assert "The answer of 3 results is being computed and follows in a moment." in _text(first)
    assert "No trial has a result yet" not in first
    for thread in threading.enumerate():
        if thread.name.startswith("answer "):
            thread.join(60)
    pages = ("/", "/studies/demo", "/studies/demo/trials/0")
    assert not any("data-soon" in admin.get(page).text for page in pages)
    service.complete(study_id, 1)
    for page in pages:
        html = admin.get(page).text
        assert "The answer is that of 3 of 4 results; that of all follows in a moment." in _text(html)
        assert "data-soon" in html, "the page asks again"


def test_the_pages_of_a_large_study_say_that_its_answer_could_not_be_computed(
    service: Service, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = service.create(budget={"trials": 90})
    service.complete(study_id, 3)
    with service.database.transaction() as connection:
        (key,) = answers._keys(connection, [studies.get(connection, "demo")])
    monkeypatch.setattr(answers, "LARGE", 1)
    monkeypatch.setattr(answers, "_failed", {study_id: (key, "ValueError: no <curve>")})
    for page in ("/", "/studies/demo", "/studies/demo/trials/0"):
        html = admin.get(page).text
        assert "The answer of 3 results could not be computed (ValueError: no <curve>);" in unescape(_text(html))
        assert "data-soon" not in html, "asking again changes nothing"
        assert "is being computed" not in html
        assert "No trial has a result yet" not in html


def test_a_small_study_whose_answer_cannot_be_computed_says_so_and_leaves_the_others_theirs(
    service: Service, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(spec: StudySpec, *rest: Any) -> Any:
        if spec.name == "demo":
            raise ValueError("no curve")
        return answer(spec, *rest)

    monkeypatch.setattr(answers, "answer", fail)
    for name in ("demo", "sound"):
        service.complete(service.create(name=name), 3)
    said = "The answer of 3 results could not be computed (ValueError: no curve);"
    for page in ("/", "/studies/demo", "/studies/demo/trials/0", "/"):
        assert said in _text(admin.get(page).text)
    assert "0.2 ± 0.03 · trial 2" in _text(admin.get("/").text), "of the sound one"
    assert caplog.text.count("could not be computed") == 1


def test_the_pages_of_a_large_study_do_not_show_a_trial_that_was_taken_out_as_the_best(
    service: Service, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = service.create(budget={"trials": 90})
    service.complete(study_id, 3)
    assert "0.2 ± 0.03 · trial 2" in _text(admin.get("/").text)
    monkeypatch.setattr(answers, "LARGE", 1)
    monkeypatch.setattr(answers, "_beside", {study_id: float("inf")})  # none is computed meanwhile
    with service.http() as http:
        http.delete("/v1/studies/demo/trials/2").raise_for_status()
    service.complete(study_id, 1)
    for page in ("/", "/studies/demo", "/studies/demo/trials/2"):
        said = _text(admin.get(page).text)
        assert "The answer of 3 results is being computed and follows in a moment." in said
        assert "0.2 ±" not in said


def test_a_page_of_many_trials_is_bounded(service: Service) -> None:
    study_id = service.create(budget={"trials": 90})
    service.suggest(study_id, points=[{"lr": 0.001 * (place + 1), "dropout": 0.1} for place in range(30)])
    with service.http() as http:
        for place in range(25):
            lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
            url = f"/v1/trials/{lease['trial_id']}"
            http.post(f"{url}/reports", json=measured(lease, 1, 0.01 * place)).raise_for_status()
            http.post(f"{url}/finish", json=finished(lease, 0.01 * place)).raise_for_status()
        html = http.get("/studies/demo").text
    assert html.count(" ± ") < 40
    assert "The best 20 of 25 configurations;" in _text(html)
    with service.database.transaction() as connection:
        assert len(overview.latest_events(connection, study_id, limit=5)) == 5
        assert all(one.event.kind != "trial.measured" for one in overview.latest_events(connection, study_id, limit=99))


def test_the_last_failures_are_listed_with_the_end_of_their_messages(service: Service, admin: httpx.Client) -> None:
    service.suggest(service.create(), 2)
    message = "Trace:\n  line\nValueError: no clips"
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        end = {"outcome": "failed", "failure_kind": "error", "failure_message": message, **fence(lease)}
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).raise_for_status()
    text = _text(admin.get("/studies/demo").text)
    assert "trial 0 error ValueError: no clips the whole message Trace: line ValueError: no clips" in text


def _spec_text(html: str) -> str:
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", html, re.DOTALL)
    assert found is not None
    return unescape(found[1])


def test_a_study_is_checked_and_created_in_a_form(database: Database) -> None:
    with (
        serving(database, preview=lambda spec: [f"{len(spec.space)} parameters"]) as running,
        _logged_in(running, "admin") as browser,
    ):
        form = browser.get("/new").text
        fields = {"form_token": _form_token(form), "spec": _spec_text(form)}
        wrong = {**fields, "spec": fields["spec"].replace("high: 0.1,", "high: 0.00001,"), "create": "yes"}
        refused = browser.post("/new", data=wrong)
        checked = browser.post("/new", data={**fields, "check": "yes"})
        with running.http("read") as http:
            assert http.get("/v1/studies").json() == []
        made = browser.post("/new", data={**fields, "create": "yes"})
        again = browser.post("/new", data={**fields, "create": "yes"})
        foreign = browser.post("/new", data={**fields, "form_token": "0" * 64, "create": "yes"})
    assert (refused.status_code, _spec_text(refused.text)) == (422, wrong["spec"])
    assert "<code>space.lr" in refused.text
    assert (checked.status_code, "3 parameters" in checked.text) == (200, True)
    assert (made.status_code, made.headers["location"]) == (303, "/studies/my-study")
    assert (again.status_code, "<code>name</code>" in again.text) == (409, True)
    assert foreign.status_code == 403


def test_a_spec_that_the_api_takes_is_taken_in_a_form(database: Database) -> None:
    """In a form, a line end takes six times the space, and a letter beyond ASCII three times that of its bytes."""
    with (
        serving(database, preview=lambda spec: [f"{len(spec.name)} characters"]) as running,
        _logged_in(running, "admin") as browser,
    ):
        form = browser.get("/new").text
        fields, spec = {"form_token": _form_token(form), "check": "yes"}, _spec_text(form)
        longest = spec + "# " + "é" * ((2**18 - len(spec) - 3) // 2) + "\n"
        taken = browser.post("/new", data={**fields, "spec": longest.replace("\n", "\r\n")})
        longer = longest + "# one line more\n"
        refused = browser.post("/new", data={**fields, "spec": longer.replace("\n", "\r\n")})
        too_large = browser.post("/new", data={**fields, "spec": "é" * 200_000})
    assert len(longest.encode()) in (2**18 - 1, 2**18)
    assert (taken.status_code, "8 characters" in taken.text) == (200, True)
    assert (refused.status_code, _spec_text(refused.text)) == (422, longer)
    assert "a study spec has at most 262,144 bytes" in refused.text
    assert (too_large.status_code, "the form has 1,200," in too_large.text) == (413, True)


def test_a_study_with_the_longest_name_can_be_cloned(service: Service, admin: httpx.Client) -> None:
    for ending in ("", "y", "-2"):
        name = "x" * (100 - len(ending)) + ending
        service.create(name=name)
        answer = admin.get("/new", params={"from": name})
        free = f"{name[:98]}-{'3' if ending == '-2' else '2'}"
        assert (answer.status_code, f"name: {free}\n" in _spec_text(answer.text)) == (200, True), name


def test_a_clone_begins_with_the_spec_of_another_study_under_a_free_name(
    past_service: Service,
) -> None:
    with _logged_in(past_service, "admin") as browser:
        assert 'href="/new?from=demo"' in browser.get("/studies/demo").text
        cloned = _spec_text(browser.get("/new", params={"from": "demo"}).text)
        for source in ("nothing", "a%00b", "%ED%A0%BD", "%FF", "x" * 201):
            assert browser.get(f"/new?from={source}").status_code in (404, 422), source
    with past_service.http("read") as http:
        old = http.get("/v1/studies/demo").json()["spec"]
    assert stored_spec(yaml.safe_load(cloned)) == stored_spec({**old, "name": "demo-2"})
    with _logged_in(past_service, "read") as browser:
        assert 'href="/new' not in browser.get("/studies/demo").text + browser.get("/").text


def test_a_budget_is_changed_and_a_study_reopened_by_buttons(service: Service, admin: httpx.Client) -> None:
    service.create(budget={"trials": 9, "gpu_hours": 2.0})
    token = _form_token(admin.get("/studies/demo").text)
    limits = {"form_token": token, "trials": "12", "gpu_hours": "", "wall_hours": "", "max_failed": ""}
    changed = admin.post("/studies/demo/budget", data=limits)
    wrong = admin.post("/studies/demo/budget", data={**limits, "trials": "many", "gpu_hours": "-1"})
    assert (changed.status_code, wrong.status_code) == (303, 422)
    assert "<code>budget.trials</code> &#39;many&#39; is not a whole number" in wrong.text
    assert "(reads)" not in wrong.text, "who may steer is not called a reader on a page of an error"
    with service.http("admin") as http:
        assert http.get("/v1/studies/demo").json()["spec"]["budget"]["trials"] == 12
        assert http.get("/v1/studies/demo").json()["spec"]["budget"]["gpu_hours"] is None
        http.post("/v1/studies/demo/stop").raise_for_status()
        end_finished_studies(service.database)
        page = admin.get("/studies/demo").text
        assert ('action="/studies/demo/reopen"' in page, 'action="/studies/demo/budget"' in page) == (True, False)
        assert admin.post("/studies/demo/reopen", data=limits).status_code == 303
        assert http.get("/v1/studies/demo").json()["state"] == "active"


def _hidden(html: str, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]* value="([^"]*)"', html)
    assert found is not None, name
    return found[1]


def test_an_old_form_of_a_budget_does_not_take_back_what_others_changed(service: Service, admin: httpx.Client) -> None:
    service.create(budget={"trials": 9, "gpu_hours": 2.0})

    def form(**changes: str) -> dict[str, str]:
        html = admin.get("/studies/demo").text
        fields = {name: _hidden(html, name) for name in ("form_token", "revision", "trials", "gpu_hours")}
        return {**fields, "wall_hours": "", "max_failed": "", **changes}

    def budget() -> tuple[int | None, float | None]:
        with service.database.transaction() as connection:
            found = studies.get(connection, "demo").spec.budget
        return found.trials, found.gpu_hours

    mine, old = form(trials="12"), form(gpu_hours="3.0")
    assert admin.post("/studies/demo/budget", data=mine).status_code == 303
    refused = admin.post("/studies/demo/budget", data=old)
    assert (refused.status_code, budget()) == (409, (12, 2.0))
    assert "somebody has changed the study &#39;demo&#39; since you loaded it" in refused.text
    assert admin.post("/studies/demo/budget", data={**old, "revision": "x"}).status_code == 422
    with service.http() as http:
        http.post("/v1/studies/demo/stop").raise_for_status()
        end_finished_studies(service.database)
        old, mine = form(), form(trials="15")
        assert admin.post("/studies/demo/reopen", data=mine).status_code == 303
        http.post("/v1/studies/demo/stop").raise_for_status()
        end_finished_studies(service.database)
    refused = admin.post("/studies/demo/reopen", data=old)
    assert (refused.status_code, budget()) == (409, (15, 2.0))
    assert admin.post("/studies/demo/reopen", data=form()).status_code == 303


def test_a_study_that_cannot_be_read_is_on_the_first_page(service: Service, admin: httpx.Client) -> None:
    service.create(name="broken")
    with service.database.transaction() as connection:
        connection.execute(text("UPDATE study SET spec = spec || '{\"of_a_later_release\": 1}' WHERE name = 'broken'"))
    assert "the study 'broken' cannot be read by this release" in _text(unescape(admin.get("/").text))


def test_the_best_so_far_begins_with_what_came_before_the_trials_that_are_shown(
    past_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with past_service.http("read") as http:
        whole = _figure(http.get("/studies/demo").text, "progress-data")
        monkeypatch.setattr("api.browser.study.MOST_ENDED", 3)
        latest = _figure(http.get("/studies/demo").text, "progress-data")
    place = whole["numbers"].index(latest["numbers"][0])
    assert place > 0
    assert latest["best"] == whole["best"][place:]


def test_a_note_is_kept_on_the_page(service: Service, admin: httpx.Client) -> None:
    service.create()
    fields = {"form_token": _form_token(admin.get("/studies/demo").text), "note": f"{NASTY}\r\nsecond line"}
    assert admin.post("/studies/demo/note", data=fields).status_code == 303
    html = admin.get("/studies/demo").text
    assert NASTY not in html
    assert f'<p class="note">{escape(NASTY)}\nsecond line</p>' in html
    assert admin.post("/studies/demo/note", data={**fields, "note": "\0"}).status_code == 303
    assert admin.post("/studies/demo/note", data={**fields, "note": "x" * 20_001}).status_code == 422
    assert admin.post("/studies/demo/note", data={"note": "x"}).status_code == 403


def _note(service: Service) -> str | None:
    with service.database.transaction() as connection:
        return studies.get(connection, "demo").note


def test_a_note_that_cannot_be_kept_stays_on_the_page(service: Service, admin: httpx.Client) -> None:
    service.create()
    fields = {"form_token": _form_token(admin.get("/studies/demo").text)}
    longest = "\n".join(["x" * 99] * 200)
    assert len(longest) == 19_999
    sent = longest.replace("\n", "\r\n")
    assert admin.post("/studies/demo/note", data={**fields, "note": sent}).status_code == 303, "as browsers send it"
    assert _note(service) == longest
    refused = admin.post("/studies/demo/note", data={**fields, "note": sent + "yz"})
    assert (refused.status_code, _spec_text(refused.text)) == (422, f"{longest}yz"), refused.text[:2000]
    assert "A note has at most 20,000 characters, this one has 20,001." in refused.text
    assert ' data-page="/studies/demo"' in refused.text
    assert ' data-page="' not in admin.get("/studies/demo").text
    assert _note(service) == longest


def test_a_note_does_not_replace_one_that_its_writer_has_not_seen(service: Service, admin: httpx.Client) -> None:
    service.create()
    html = admin.get("/studies/demo").text
    mine = {"form_token": _form_token(html), "replaces": _hidden(html, "replaces"), "note": f"mine {NASTY}"}
    with service.http() as http:
        http.patch("/v1/studies/demo", json={"note": "of somebody else"}).raise_for_status()
    refused = admin.post("/studies/demo/note", data=mine)
    assert (refused.status_code, _note(service)) == (409, "of somebody else")
    assert '<p class="note">of somebody else</p>' in refused.text
    assert (_spec_text(refused.text), NASTY in refused.text) == (f"mine {NASTY}", False)
    assert "Somebody has changed the note since you loaded this page." in refused.text
    seen = {**mine, "replaces": _hidden(refused.text, "replaces")}
    assert admin.post("/studies/demo/note", data=seen).status_code == 303
    assert _note(service) == f"mine {NASTY}"
    assert admin.post("/studies/demo/note", data=mine).status_code == 303, "it says that already"


def test_a_form_without_a_note_removes_none(service: Service) -> None:
    service.create()
    with service.http() as http:
        http.patch("/v1/studies/demo", json={"note": "kept"}).raise_for_status()
        unread = {"note": "x", **{f"field{place}": "x" for place in range(1001)}}
        answers = [http.post("/studies/demo/note", data=data) for data in ({}, unread, {"note": "x" * 300_000})]
        assert [answer.status_code for answer in answers] == [422, 413, 413]
        assert "note: this field is required; an empty one removes the note" in answers[0].json()["detail"]
        assert _note(service) == "kept"
        assert http.post("/studies/demo/note", data={"note": ""}).status_code == 303
    assert _note(service) is None


def test_a_preview_that_fails_or_hangs_is_said(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, names = threading.Event(), list[str]()

    def preview(spec: StudySpec) -> list[str]:
        names.append(spec.name)
        if spec.name == "bad":
            raise RuntimeError("a secret of the service")
        assert let_go.wait(30)
        return ["it is known after all"]

    with serving(database, preview=preview) as running, _logged_in(running, "admin") as browser:
        form = browser.get("/new").text
        token, spec = _form_token(form), _spec_text(form)

        def check(name: str) -> str:
            written = spec.replace("name: my-study", f"name: {name}")
            return _text(browser.post("/new", data={"form_token": token, "spec": written, "check": "yes"}).text)

        failed = check("bad")
        monkeypatch.setattr("api.browser.new.PREVIEW_SECONDS", 0.05)
        late = [check(f"slow-{place}") for place in range(3)]
        let_go.set()
        monkeypatch.setattr("api.browser.new.PREVIEW_SECONDS", 20.0)
        known = check("soon")
    assert (
        "bad: the spec is right; nothing was stored what it would be cannot be said; the log of the service" in failed
    )
    assert "a secret" not in failed
    assert all("what it would be was not known within 0 s" in said for said in late)
    assert "it is known after all" in known
    assert names == ["bad", "slow-0", "slow-1", "soon"], "the third was not begun"


def test_the_form_begins_with_an_example_of_each_kind(database: Database) -> None:
    with serving(database) as running, _logged_in(running, "admin") as browser:
        for kind in ("video", "image", "custom"):
            form = browser.get("/new", params={"kind": kind}).text
            spec = _spec_text(form).replace("my-study", f"my-{kind}")
            made = browser.post("/new", data={"form_token": _form_token(form), "spec": spec, "create": "yes"})
            assert (made.status_code, made.headers.get("location")) == (303, f"/studies/my-{kind}"), _text(made.text)
            with running.database.transaction() as connection:
                assert studies.get(connection, f"my-{kind}").spec.task.kind == kind
        assert '<option value="/data/videos">' in browser.get("/new").text, "what other studies name is offered"
        said = _text(browser.get("/data-sets").text)
        assert ("Images known once a trial has ended" in said, "Videos known once a trial has ended" in said) == (
            True,
        ) * 2
