"""A study that no optimizer serves says so wherever a person looks at it or at what it has found."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from api.dashboard.source import DatabaseSource
from hpo.client import Client
from hpo.report import material, words
from hpo.store import Database
from hpo.store.study_row import NO_OPTIMIZER

from ..api.service import claim_body, finished, serving
from .conftest import Command


def test_every_surface_says_that_there_is_no_optimizer(database: Database, hpo: Command, tmp_path: Path) -> None:
    with serving(database, fallback_seconds=0.0) as service, service.http() as http:
        service.create()
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, 0.5)).raise_for_status()
        with database.transaction() as connection:
            connection.execute(text("UPDATE study SET created_at = created_at - interval '31 s'"))
            connection.execute(text("UPDATE study SET state_changed_at = created_at"))
        with Client(service.url, service.tokens["read"]) as client:
            studied = material.read(client, "demo")
        (view,) = DatabaseSource(database).studies()
        output = str(tmp_path / "best.yaml")
        surfaces = {
            "list": str(http.get("/v1/studies").json()),
            "study": str(http.get("/v1/studies/demo").json()),
            "dashboard": str(view.user_attrs),
            "page of the workers": http.get("/workers").text,
            "report": "\n".join(words.checks(studied, {})).lower(),
        }
        commands = [("study", "list"), ("study", "show", "demo"), ("trials", "demo"), ("best", "demo")]
        for command in [*commands, ("export", "demo", "-o", output)]:
            said = hpo(service, *command)
            surfaces[" ".join(command[:2])] = said.out + said.err
        health = http.get("/v1/health").json()
    sentence = NO_OPTIMIZER.partition(",")[0]
    assert [name for name, shown in surfaces.items() if sentence not in shown] == []
    assert "served the study: 1 of 1 trial." in surfaces["report"]
    assert health["status"] == "degraded"
