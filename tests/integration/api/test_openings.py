"""Openings of sealed test lists: kept once and for good, told to everybody, and never rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from hpo.client import Client
from hpo.errors import ConflictError

from .service import Service

LIST = "ab" * 16


def _opening(**changes: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "test_list": LIST,
        "split": 1,
        "dataset_version": "v1",
        "opened_at": "2026-05-04T12:30:00Z",
        "videos": 44,
        "reason": "final evaluation of trial 7 of study demo",
        "checkpoint": "c" * 64,
        "host": "here",
        "score": None,
        **changes,
    }


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.tokens["admin"]) as client:
        yield client


def test_an_opening_is_kept_and_told_with_what_it_found(client: Client) -> None:
    first = _opening()
    client.keep_opening(first)
    client.keep_opening(_opening(test_list="cd" * 16))
    assert client.openings(LIST) == [first]
    score = {"top1": 0.75, "interval": [0.5, 0.9], "same_dataset": True, "dataset_version": "v1", "videos": 44}
    client.keep_opening({**first, "score": score})
    client.keep_opening({**first, "score": {"top1": 0.99}})
    client.keep_opening(first)
    assert client.openings(LIST) == [{**first, "score": score}], "a score is never replaced"


def test_openings_are_told_the_oldest_first(client: Client) -> None:
    for month in (3, 1, 2):
        client.keep_opening(_opening(opened_at=f"2026-0{month}-01T00:00:00Z"))
    assert [one["opened_at"][:7] for one in client.openings(LIST)] == ["2026-01", "2026-02", "2026-03"]


@pytest.mark.parametrize("change", [{"test_list": "cd" * 16}, {"checkpoint": "d" * 64}, {"checkpoint": None}])
def test_an_id_stays_with_its_list_and_checkpoint(client: Client, change: dict[str, Any]) -> None:
    first = _opening()
    client.keep_opening(first)
    with pytest.raises(ConflictError, match="another test list or checkpoint"):
        client.keep_opening({**first, **change, "score": {"top1": 0.1}})
    assert client.openings(LIST) == [first]


def test_the_record_outlives_the_study(service: Service, client: Client) -> None:
    service.create()
    client.keep_opening(_opening())
    client.delete_study("demo")
    assert len(client.openings(LIST)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"test_list": "short"},
        {"checkpoint": "x" * 64},
        {"split": 0},
        {"opened_at": "2026-05-04T12:30:00"},
        {"reason": ""},
        {"score": {"top1": {"nested": 1}}},
        {"unknown": 1},
    ],
)
def test_what_is_not_an_opening_is_refused(http: httpx.Client, change: dict[str, Any]) -> None:
    assert http.post("/v1/openings", json=_opening(**change)).status_code == 422
    assert http.get("/v1/openings", params={"test_list": LIST}).json() == []
