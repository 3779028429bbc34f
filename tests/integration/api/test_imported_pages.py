"""Pages of a trial from elsewhere: where from, without what only a worker sends, and how it is trained here."""

from __future__ import annotations

import re

from .service import Service


def test_an_imported_trial_says_where_it_is_from_and_is_trained_again_by_its_button(service: Service) -> None:
    service.create()
    origin = {"source": "the table sweep.csv", "trial": "row 2", "key": "5f0c"}
    trial = {"origin": origin, "params": {"lr": 0.01, "dropout": 0.1}, "state": "completed"}
    with service.http() as http:
        body = {"trials": [{**trial, "metrics": {"val_top1": 0.71}}]}
        http.post("/v1/studies/demo/import", json=body).raise_for_status()
        page = http.get("/studies/demo/trials/0").text
        assert "row 2 of the table sweep.csv" in page
        assert not re.search("Confusion matrix|The end of its log|No worker has begun it", page)
        assert "/studies/demo/trials/0/replicate" in page
        again = http.post("/studies/demo/trials/0/replicate")
        assert (again.status_code, again.headers["location"]) == (303, "/studies/demo/trials/1")
        assert http.get("/v1/studies/demo/trials/1").json()["replicate_of"] == 0


def test_a_trial_that_was_taken_out_is_not_offered_to_be_trained_again(service: Service) -> None:
    service.complete(service.create(), 1)
    with service.http() as http:
        assert "/trials/0/replicate" in http.get("/studies/demo/trials/0").text
        http.delete("/v1/studies/demo/trials/0").raise_for_status()
        assert "/trials/0/replicate" not in http.get("/studies/demo/trials/0").text
        refused = http.post("/v1/studies/demo/trials/0/replicate")
    assert (refused.status_code, "was taken out of the study" in refused.json()["detail"]) == (409, True)
