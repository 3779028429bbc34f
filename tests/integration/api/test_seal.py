"""The seal of a test list where a service keeps the record: everybody who asks it knows of every opening."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpo.client import Client
from hpo.errors import ConflictError

from ...unit.hpo.cli.exports import NOBODY, Bench
from .service import Service

FINAL = ("--final", "--cpu", "--clips", "1")


def test_the_service_tells_of_openings_elsewhere(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_TOKEN", service.tokens["admin"])
    here = Bench.make(tmp_path)
    there = Bench(home=tmp_path / "other home", videos=here.videos)
    first = here.export(tmp_path / "first.yaml")
    assert here.run("evaluate", first, *FINAL, url=NOBODY).exit_code == 0
    log = [json.loads(line) for line in (here.home / "cache" / "unsealed.jsonl").read_text().splitlines()]
    with Client(service.url, service.tokens["admin"]) as client:
        assert client.openings(log[0]["test_list"]) == [], "recorded while no service answered"
        second = here.export(tmp_path / "second.yaml", weights=1)
        refused = here.run("evaluate", second, *FINAL, url=service.url)
        assert isinstance(refused.exception, ConflictError)
        (kept,) = client.openings(log[0]["test_list"])
        assert kept["score"] is not None
        assert (kept["id"], kept["score"]["top1"]) == (log[0]["id"], log[1]["score"]["top1"]), "sent afterwards"

        elsewhere = there.run("evaluate", there.export(tmp_path / "third.yaml", weights=2), *FINAL, url=service.url)
        assert isinstance(elsewhere.exception, ConflictError)
        again = there.run("evaluate", tmp_path / "third.yaml", *FINAL, "--again", url=service.url)
        assert again.exit_code == 0, again.exception
        assert "was opened once before" in again.stderr
        assert [one["score"] is not None for one in client.openings(log[0]["test_list"])] == [True, True]

        first.with_suffix(".final.json").unlink()
        known = there.run("evaluate", first, *FINAL, url=service.url)
        assert "The test list was opened on" in known.stdout, "the checkpoint was scored in the other data directory"
