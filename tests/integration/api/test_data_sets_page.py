"""The page of the data sets says what workers have said of them, bounded, and nothing of studies without one."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx

from hpo.store import data_sets
from hpo.trial import REPLICATE

from .service import Service, claim_body, fence, finished, measured

ROOT = "/data/<b>videos"
TASK: dict[str, Any] = {"dataset": {"name": "ucf101", "root": ROOT}, "epochs": 10, "base": {"batch_size": 4}}
LEFT_OUT = [{"path": f"v{place}.avi", "note": "it ends in the middle"} for place in range(5)]
FOUND = {"train": 9_000, "validation": 500, "left_out": 3_000, "examples": LEFT_OUT}


def _text(html: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", html).split()))


def _train(http: httpx.Client, study: str, worker: str, version: str, dataset: dict[str, Any]) -> None:
    lease = http.post("/v1/leases", json=claim_body(worker, study=study)).raise_for_status().json()
    confusion = {"step": 1, "class_names": ["jump", "run"], "videos": [260, 240], "cells": [[0, 0, 200], [1, 0, 240]]}
    report = measured(lease, 1, 0.4) | {"confusion": confusion}
    http.post(f"/v1/trials/{lease['trial_id']}/reports", json=report).raise_for_status()
    end = finished(lease, 0.4, dataset_version=version, environment={"dataset": dataset})
    http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).raise_for_status()


def test_a_data_set_with_everything_that_is_known_of_it(service: Service, http: httpx.Client) -> None:
    first, second = service.create(name="first", task=TASK), service.create(name="second", task=TASK)
    service.create(name="elsewhere")
    service.suggest(first, 2)
    service.suggest(second, 2)
    _train(http, "first", "w1", "1" * 40, FOUND)
    _train(http, "first", "w1", "2" * 40, {**FOUND, "reasons": {"corrupt": 2_990, "missing": 10}})
    _train(http, "second", "w2", "2" * 40, {**FOUND, "reasons": {"corrupt": 2_990, "missing": 10}, "validation": 400})
    lease = http.post("/v1/leases", json=claim_body("w3", study="second")).raise_for_status().json()
    gone = {**fence(lease), "reason": "crashed", "fault": "files", "message": "no folder /data here"}
    http.post(f"/v1/trials/{lease['trial_id']}/release", json=gone).raise_for_status()
    html = http.get("/data-sets", headers={"Accept": "text/html"}).text
    assert "<b>videos" not in html
    said = _text(html)
    for words in (
        "9,000 to train, 400 to validate",
        "3,000 videos : 2,990 damaged, 10 missing",
        "Classes 2",
        "jump 260 run 240",
        "first active split 1, whole groups held out (1of6) 9,000 and 500",
        "second active split 1, whole groups held out (1of6) 9,000 and 400",
        "w3 gets no trials of second until",
        "no folder /data here",
        "2 versions of this data set",
        f"{'2' * 12} 2 trials",
        f"{'1' * 12} 1 trial,",
        "The first 5 of 3,000; on a machine that reaches the folder, hpo data check '/data/<b>videos' names all.",
        "v4.avi it ends in the middle",
        "elsewhere active split 1",
    ):
        assert words in said, (words, said)
    assert "w2, w1" in said
    study = http.get("/studies/first").text
    anchor = re.search(r'href="/data-sets#(data-[0-9a-f]+)"', study)
    assert anchor is not None
    assert f'<section class="card" id="{anchor[1]}"' in html


def test_the_page_says_so_where_nothing_is_known(service: Service, http: httpx.Client) -> None:
    assert "No study names a data set yet" in http.get("/data-sets").text
    service.create()
    said = _text(http.get("/data-sets").text)
    assert "Videos known once a trial has ended Not used not known yet" in said
    assert "Trained on lately by no worker" in said


def test_what_a_worker_of_another_release_says_is_left_out(service: Service, http: httpx.Client) -> None:
    study_id = service.create(task=TASK)
    service.suggest(study_id)
    _train(http, "demo", "w1", "1" * 40, {"train": "many"})
    with service.database.transaction() as connection:
        assert data_sets.seen_by_study(connection, [study_id]) == {}
    assert "known once a trial has ended" in http.get("/data-sets").text


def test_a_confusion_matrix_is_on_the_page_of_its_trial(service: Service, http: httpx.Client) -> None:
    service.suggest(service.create(task=TASK), 2)
    _train(http, "demo", "w1", "1" * 40, FOUND)
    html = http.get("/studies/demo/trials/0").text
    said = _text(html)
    assert "After epoch 1, 200 of 500 validation videos of 2 classes were classified rightly." in said
    assert "run jump 240 of 240" in said, "what was confused"
    assert "run 0 of 240 (0%) jump 200 of 260 (77%)" in said, "the worst class first"
    assert "After epoch" not in http.get("/studies/demo/trials/1").text


def test_why_a_configuration_is_proposed(service: Service, http: httpx.Client) -> None:
    study_id = service.create()
    service.complete(study_id, 1)
    service.suggest(study_id)
    http.post("/v1/studies/demo/trials/0/replicate").raise_for_status()
    said = _text(http.get("/studies/demo").text)
    assert "sobol: spread evenly over the space, without a model" in said
    assert "trains trial 0 again with another seed" in said
    assert REPLICATE not in said
