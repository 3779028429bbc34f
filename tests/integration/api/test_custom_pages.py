"""Pages of a study of a person's own function: no data set, no spread where none is known, the right command."""

from __future__ import annotations

import re

from hpo.client.http import Client
from hpo.report.findings import Findings
from hpo.report.markdown import render_markdown
from hpo.report.material import read
from hpo.store import Database

from .service import Service, claim_body, fence, serving

TASK = {"kind": "custom", "metrics": {"score": "maximize"}}
WORKER = {"name": "w", "host": "h", "pid": 1, "device": "cpu", "version": "0.3.0"}


def test_the_leaderboard_says_which_version_of_the_function_a_result_is_of(service: Service) -> None:
    study_id = service.create(name="mine", task=TASK, objectives=[{"metric": "score"}])
    service.suggest(study_id, 2)
    with service.http("worker") as http:
        for value, version in ((1.0, "aaaaaaaaaaaa mine.py:train"), (2.0, "bbbbbbbbbbbb mine.py:train")):
            lease = http.post("/v1/leases", json=claim_body(task_kinds=["custom"])).json()
            body = {**fence(lease), "outcome": "completed", "metrics": {"score": value}, "dataset_version": version}
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()
    with service.http("read") as http:
        page = http.get("/studies/mine").text
    assert re.search(r"<th [^>]*>Function</th>", page)
    assert re.findall(r'data-name="Function"><code>(\w+)</code>', page) == ["bbbbbbbbbbbb", "aaaaaaaaaaaa"]


def test_the_report_of_a_function_names_no_classes_and_no_command_that_needs_videos(service: Service) -> None:
    study_id = service.create(name="mine", task=TASK, objectives=[{"metric": "score"}])
    service.suggest(study_id, 1)
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body(task_kinds=["custom"])).json()
        body = {**fence(lease), "outcome": "completed", "metrics": {"score": 1.0}}
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()
    with Client(service.url, service.tokens["read"]) as client:
        material = read(client, "mine")
    report = render_markdown(material, Findings(missing="too few trials"))
    assert "`hpo finalists mine`" in report
    for others in ("hpo train", "hpo evaluate", "classes"):
        assert others not in report


def test_a_study_of_a_function_has_its_pages(database: Database) -> None:
    with serving(database) as service:
        study_id = service.create(name="mine", task=TASK, objectives=[{"metric": "score"}])
        service.suggest(study_id, 1)
        with service.http("worker") as http:
            claim = {"worker": WORKER, "lease_id": "0b8f6c1e-6f0c-4d59-9d0a-2f1f6f1b7b11"}
            assert http.post("/v1/leases", json=claim).status_code == 204, "a worker without an entry"
            lease = http.post("/v1/leases", json={**claim, "task_kinds": ["custom"]}).json()
            assert lease["task"]["kind"] == "custom"
            fence = {"attempt": lease["attempt"], "lease_id": lease["lease_id"]}
            result = {
                "outcome": "completed",
                "metrics": {"score": 2.5},
                "dataset_version": "0123456789ab mine.py:train",
            }
            done = http.post(f"/v1/trials/{lease['trial_id']}/finish", json={**fence, **result})
            assert done.status_code == 200
        with service.http("read") as http:
            study, trial = (http.get(f"/studies/mine{rest}") for rest in ("", "/trials/0"))
        assert (study.status_code, trial.status_code) == (200, 200)
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", study.text))
        assert "score 2.5" in words
        assert "±" not in words, "single values show no spread"
        assert "Confusion matrix" not in trial.text, "a function classifies no videos"
        assert "of the training" not in study.text + trial.text, "and has no metrics of the training"
        assert ">Function<" not in study.text, "all results are of one version of it"
        assert re.search(r"<th scope=\"row\">function</th><td[^>]*>0123456789ab mine.py:train", trial.text)
