"""Everything that shows a best trial shows the same one: API, commands, export, dashboard, warm starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.dashboard.source import DatabaseSource
from hpo.optuna_view.storage import StudyStorage
from hpo.results.export import load_export
from hpo.results.warm_start import best_of
from hpo.spec import parse_spec
from hpo.store import earlier, studies

from ..api.service import Service, claim_body, finished, measured, spec
from .conftest import Command
from .test_results import _numbers

TWO = [{"metric": "val_top1"}, {"metric": "val_loss"}]
LIMIT = ["epoch_seconds <= 10"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a trial ended; None is a metric that was never reported."""

    top1: float
    loss: float = 0.5
    seconds: float | None = 5.0
    outcome: str = "completed"

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured."""
        known = {"val_top1": self.top1, "val_loss": self.loss, "epoch_seconds": self.seconds}
        return {name: value for name, value in known.items() if value is not None}


ONE_OBJECTIVE = [
    Ended(top1=0.9, seconds=11.0),
    Ended(top1=0.6),
    Ended(top1=0.6),
    Ended(top1=0.8, seconds=None),
    Ended(top1=0.5),
]
TWO_OBJECTIVES = [
    Ended(top1=0.9, loss=0.8),
    Ended(top1=0.9, loss=0.5),
    Ended(top1=0.95, loss=0.3, seconds=11.0),
    Ended(top1=0.4, loss=0.1),
    Ended(top1=0.1, loss=2.0, outcome="stopped"),
    Ended(top1=0.3, loss=0.2),
    Ended(top1=0.9, loss=0.5),
]


def _play(service: Service, ends: list[Ended], objectives: list[dict[str, str]]) -> int:
    study_id = service.create(objectives=objectives, constraints=LIMIT)
    service.suggest(study_id, len(ends))
    with service.http("worker") as http:
        for ended in ends:
            lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
            report = measured(lease, 1, ended.top1 / 2)
            http.post(f"/v1/trials/{lease['trial_id']}/reports", json=report).raise_for_status()
            body = finished(lease, ended.top1, outcome=ended.outcome) | {"metrics": ended.metrics}
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()
    return study_id


def _shown(service: Service, hpo: Command, folder: Path) -> dict[str, int]:
    """Return the number of the best trial by every way to ask for it but the dashboard and warm starts."""
    hpo(service, "export", "demo", "-o", folder / "best.yaml")
    with service.http("read") as http:
        routes = {
            "best": http.get("/v1/studies/demo/best").json()["number"],
            "study": http.get("/v1/studies/demo").json()["best"]["number"],
            "list": http.get("/v1/studies").json()[0]["best"]["number"],
            "export": json.loads(http.get("/v1/studies/demo/export", params={"format": "json"}).text)["trial"],
        }
    return routes | {
        "hpo export": load_export(folder / "best.yaml").trial,
        "hpo best": int(hpo(service, "best", "demo").out.split()[1].rstrip(":")),
        "hpo trials": _numbers(hpo(service, "trials", "demo").out)[0],
    }


def _warm_start(service: Service, objectives: list[dict[str, str]]) -> float:
    """Return the learning rate of the best earlier trial in a new study that learns from this one."""
    new = parse_spec(spec(name="next", objectives=objectives, constraints=LIMIT, optimizer={"warm_start": ["demo"]}))
    with service.database.transaction() as connection:
        study = studies.create(connection, new, actor="test")
        (found,) = best_of(new, earlier.read(connection, study.id))
    return float(found.params["lr"])


AHEAD, BEHIND = Ended(top1=0.99, outcome="stopped"), Ended(top1=0.2, outcome="stopped")


@pytest.mark.parametrize(
    ("ends", "best"),
    [
        ([AHEAD], 0),
        ([BEHIND, *ONE_OBJECTIVE[:1]], 0),
        ([BEHIND, *ONE_OBJECTIVE[:2]], 2),
        ([BEHIND, *ONE_OBJECTIVE], 2),
        ([AHEAD, *ONE_OBJECTIVE], 0),
    ],
)
def test_one_objective(service: Service, hpo: Command, tmp_path: Path, ends: list[Ended], best: int) -> None:
    """A stopped trial is the best if it is believed to be; what breaks a limit or was not measured never is."""
    count = len(ends)
    study_id = _play(service, ends, TWO[:1])
    shown = _shown(service, hpo, tmp_path)
    assert shown == dict.fromkeys(shown, best)
    assert StudyStorage(DatabaseSource(service.database)).get_best_trial(study_id).number == best
    with service.http("read") as http:
        page = http.get(f"/api/studies/{study_id}").json()
    assert [trial["number"] for trial in page["best_trials"]] == ([best] if count > 1 else [])
    if count > 2:
        assert _warm_start(service, TWO[:1]) == pytest.approx(0.01 * (best + 1))


def test_a_cancelled_trial_that_failed_shows_what_it_measured_last(
    service: Service, hpo: Command, tmp_path: Path
) -> None:
    study_id = service.create(objectives=TWO[:1])
    service.suggest(study_id, 1)
    with service.http("worker") as http, service.http("admin") as admin:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.5)).raise_for_status()
        admin.post("/v1/studies/demo/trials/0/cancel").raise_for_status()
        body = finished(lease, 0.5, outcome="failed") | {
            "metrics": {},
            "failure_kind": "error",
            "failure_message": "x",
        }
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()
    shown = _shown(service, hpo, tmp_path)
    assert shown == dict.fromkeys(shown, 0)
    assert load_export(tmp_path / "best.yaml").metrics["val_top1"] == 0.5


def test_two_objectives(service: Service, hpo: Command, tmp_path: Path) -> None:
    """Of the two that are best in the first objective, the one that the other dominates is not shown."""
    _play(service, TWO_OBJECTIVES, TWO)
    shown = _shown(service, hpo, tmp_path)
    assert shown == dict.fromkeys(shown, 1)
    assert sorted(_numbers(hpo(service, "best", "demo").out)) == [1, 3, 6], "the front: equals are all on it"
    assert _warm_start(service, TWO) == pytest.approx(0.02)
