"""optuna-dashboard behind our gate: everything that reads works, nothing that writes does."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from api.auth import create_login_link
from api.dashboard import sampling
from hpo.store import Database

from .service import KEY, Service, serving

WRITING = [
    ("POST", "/api/studies"),
    ("DELETE", "/api/studies/{study}"),
    ("POST", "/api/studies/{study}/rename"),
    ("PUT", "/api/studies/{study}/note"),
    ("PUT", "/api/studies/{study}/{trial}/note"),
    ("POST", "/api/studies/{study}/preference"),
    ("DELETE", "/api/studies/{study}/preference/1"),
    ("PUT", "/api/studies/{study}/preference_feedback_component"),
    ("POST", "/api/studies/{study}/{trial}/skip"),
    ("POST", "/api/trials/{trial}/tell"),
    ("POST", "/api/trials/{trial}/user-attrs"),
    ("POST", "/api/artifacts/{study}"),
    ("POST", "/api/artifacts/{study}/{trial}"),
    ("DELETE", "/api/artifacts/{study}/abc"),
    ("DELETE", "/api/artifacts/{study}/{trial}/abc"),
    ("POST", "/api/llm/trial_filter_query"),
    ("POST", "/incompatible-rdb-schema"),
    ("OPTIONS", "/api/studies"),
    ("PATCH", "/dashboard"),
    ("PUT", "/static/bundle.js"),
]


def _rows(database: Database) -> str:
    with database.transaction() as connection:
        queries = ("SELECT * FROM study ORDER BY 1", "SELECT * FROM trial ORDER BY 1")
        return repr([connection.execute(text(query)).all() for query in queries])


def test_it_shows_what_the_store_holds(past_service: Service) -> None:
    with past_service.http("read") as http:
        (summary,) = http.get("/api/studies").json()["study_summaries"]
        assert (summary["study_name"], summary["directions"]) == ("demo", ["maximize"])
        study = http.get(f"/api/studies/{summary['study_id']}").json()
        assert [trial["number"] for trial in study["trials"]] == list(range(10))
        states = {trial["number"]: trial["state"] for trial in study["trials"]}
        assert (states[4], states[8], states[9]) == ("Fail", "Running", "Waiting")
        assert {"Complete", "Pruned"} <= set(states.values())
        assert study["best_trials"][0]["number"] == http.get("/v1/studies/demo/best").json()["number"]
        assert study["objective_names"] == ["val_top1"]
        curve = study["trials"][0]["intermediate_values"]
        assert [point["step"] for point in curve][:2] == [1, 2]
        increment = http.get(f"/api/studies/{summary['study_id']}?after=9").json()
        assert [trial["number"] for trial in increment["trials"]] == [9]


def test_every_page_and_plot_answers(past_service: Service) -> None:
    with past_service.http("read") as http:
        page = http.get("/dashboard")
        assert "'unsafe-eval'" in page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert http.head("/dashboard").status_code == 200
        script = http.get("/static/bundle.js", headers={"accept-encoding": "gzip"})
        assert (script.status_code, len(script.content) > 10_000) == (200, True)
        assert "no-store" not in script.headers.get("cache-control", "")
        token = {"authorization": f"Bearer {past_service.tokens['read']}"}
        bare = httpx.Request("GET", f"{past_service.url}/static/bundle.js", headers=token)
        assert "accept-encoding" not in bare.headers
        assert http.send(bare).status_code == 200, "a client that names no encoding"
        identity = http.get("/api/studies").json()["study_summaries"][0]["study_id"]
        assert http.get("/api/meta").json()["artifact_is_available"] is False
        assert http.get(f"/api/studies/{identity}/param_importances").status_code == 200
        assert "val_top1" in http.get(f"/csv/{identity}").text
        for kind in ("contour", "slice", "parallel_coordinate", "rank", "edf", "timeline"):
            plot = http.get(f"/api/studies/{identity}/plot/{kind}")
            assert plot.status_code == 200, kind
            assert "data" in plot.json()
        assert http.get("/favicon.ico").status_code == 200
        assert http.get(f"/dashboard/studies/{identity}").status_code == 200
        assert http.get("/api/studies/987654321").status_code == 404


def test_a_plot_that_a_study_cannot_have_is_refused_with_the_reason(past_service: Service) -> None:
    with past_service.http("read") as http:
        identity = http.get("/api/studies").json()["study_summaries"][0]["study_id"]
        refused = http.get(f"/api/studies/{identity}/plot/pareto_front")
    assert refused.status_code == 422
    assert "objectives" in refused.json()["reason"]


def test_its_pages_lead_back_and_others_do_not_exist(past_service: Service) -> None:
    with past_service.http("read") as http:
        for path in ("/dashboard", "/dashboard/", "/dashboard/studies/1/trials", "/dashboard/compare-studies"):
            page = http.get(path)
            assert (page.status_code, 'class="video-hpo" href="/"' in page.text) == (200, True), path
        for path in ("/dashboard/nonsense", "/dashboard/studies/x", "/dashboard/studies/1/nonsense"):
            missing = http.get(path, headers={"accept": "text/html"})
            assert (missing.status_code, "There is no such page" in missing.text) == (404, True), path
            assert http.get(path).headers["content-type"] == "application/problem+json", path


def test_a_browser_is_told_that_it_changes_nothing(past_service: Service) -> None:
    link = create_login_link(past_service.database, KEY, past_service.url, token=past_service.tokens["admin"])
    with httpx.Client(base_url=past_service.url, timeout=30) as browser:
        browser.get(link)
        refused = browser.put("/api/studies/1/note", json={"version": 1, "body": "x"})
    assert (refused.status_code, "read-only" in refused.json()["reason"]) == (405, True)


@pytest.mark.parametrize("scope", ["read", "worker", "admin"])
def test_nothing_can_be_changed_through_it(past_service: Service, scope: str) -> None:
    with past_service.http(scope) as http:
        summary = http.get("/api/studies").json()["study_summaries"][0]
        trial = http.get(f"/api/studies/{summary['study_id']}").json()["trials"][0]["trial_id"]
        before = _rows(past_service.database)
        for method, template in WRITING:
            path = template.format(study=summary["study_id"], trial=trial)
            answer = http.request(
                method, path, json={"version": 1, "body": "x", "study_name": "y", "state": "Complete"}
            )
            assert answer.status_code == 405, (method, path, answer.text)
            assert answer.headers["allow"] == "GET, HEAD"
        assert _rows(past_service.database) == before


def test_a_plot_of_a_large_study_shows_a_sample_and_says_so(
    past_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with past_service.http("read") as http:
        identity = http.get("/api/studies").json()["study_summaries"][0]["study_id"]
        whole = http.get(f"/api/studies/{identity}/plot/rank").json()
        monkeypatch.setattr(sampling, "most_trials", lambda kind, _: {"timeline": 4}.get(kind, 2))
        for kind, title in (
            ("contour", "Contour Plot: 2 of 5 trials, evenly spread"),
            ("rank", "Rank (Objective Value): 2 of 5 trials, evenly spread"),
            ("timeline", "Timeline Plot: 4 of 10 trials, evenly spread"),
        ):
            for path in (f"/api/studies/{identity}/plot/{kind}", f"/api/studies/{identity}/plot/{kind}/"):
                plot = http.get(path)
                assert plot.json()["layout"]["title"]["text"] == title, path
                assert int(plot.headers["content-length"]) == len(plot.content)
        assert "of 5 trials" not in str(whole["layout"]["title"])
        assert len(http.get(f"/api/studies/{identity}").json()["trials"]) == 10, "the tables have all"
        assert http.get(f"/api/studies/{identity}/plot/nothing").status_code == 404


def test_it_can_be_left_out(database: Database) -> None:
    with serving(database, dashboard=False) as service, service.http() as http:
        assert http.get("/dashboard").status_code == 404
        assert http.get("/api/studies").status_code == 404


def test_answers_hold_no_nan(past_service: Service) -> None:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} in an answer")

    with past_service.http("read") as http:
        identity = http.get("/api/studies").json()["study_summaries"][0]["study_id"]
        json.loads(http.get(f"/api/studies/{identity}").text, parse_constant=refuse)


def test_the_page_of_a_large_study_gets_a_part_and_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "ALL_UP_TO", 3)
    study_id = service.create(objectives=[{"metric": "val_top1", "direction": "minimize"}])
    service.complete(study_id, 8)  # each is worse than the one before
    with service.http("read") as http:
        study = http.get(f"/api/studies/{study_id}").json()
        assert [trial["number"] for trial in study["trials"]] == [0, 1, 2, 4]
        assert study["best_trials"][0]["number"] == 0
        assert "a part of the 8 trials" in json.dumps(study["user_attrs"])
        assert len(http.get(f"/csv/{study_id}").text.splitlines()) == 9
