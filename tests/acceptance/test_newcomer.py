"""The path of a newcomer with a fresh clone: from a spec with mistakes to a report, with two breakdowns on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Service, serving, tiny_spec, wait_for

NAME = "newcomer"


def _kill_while_it_trains(service: Service) -> int:
    """Kill a worker and its training, as a machine that loses its power would; return the number of the trial."""
    with service.worker() as worker, service.client() as client:
        training = wait_for(lambda: [trial for trial in client.trials(NAME) if trial["epochs_done"]])
        for child in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        worker.kill()
    return training[0]["number"]


def _spec(service: Service, file: Path, spec: dict[str, Any]) -> tuple[int, str]:
    """Write a spec to a file, check it, and return the status and what is said."""
    file.write_text(yaml.safe_dump(spec))
    done = service.run("hpo", "study", "create", file, "--check", check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_from_a_wrong_spec_to_a_report_over_a_dead_worker_and_a_new_start_of_the_service(
    home: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "study.yaml"
    spec = tiny_spec(tiny_videos, NAME, budget={"trials": 2})
    spec["task"]["epochs"] = 4
    with serving(home) as service:
        spec["space"]["learning_rate"] = spec["space"].pop("lr")
        code, said = _spec(service, file, spec)
        assert (code, "space.learning_rate" in said, "did you mean 'lr'" in said) == (2, True, True), said
        spec["space"]["lr"] = spec["space"].pop("learning_rate")
        code, said = _spec(service, file, spec)
        assert code == 0, said
        assert json.loads(service.run("hpo", "study", "list", "--json").stdout) == []
        service.run("hpo", "study", "create", file)
        assert "no worker is connected" in service.run("hpo", "study", "show", NAME).stdout
        interrupted = _kill_while_it_trains(service)
    with serving(home) as service:
        with service.worker("--exit-when-idle", "600"), service.client() as client:
            wait_for(lambda: client.study(NAME)["state"] == "completed", seconds=240)
        _look_at_the_results(service, interrupted, tmp_path)


def _look_at_the_results(service: Service, interrupted: int, folder: Path) -> None:
    trials = {trial["number"]: trial for trial in json.loads(service.run("hpo", "trials", NAME, "--json").stdout)}
    assert {trial["state"] for trial in trials.values()} == {"completed"}
    assert trials[interrupted]["attempt"] == 2
    with service.client() as client:
        assert [len(curve["steps"]) for curve in client.curves(NAME, metric="val_top1")["curves"]] == [4, 4]
    story = service.run("hpo", "logs", NAME).stdout
    assert story.index("the study was created") < story.index("began on") < story.index("the study is complete"), story
    best = json.loads(service.run("hpo", "best", NAME, "--json").stdout)
    # Not always the luckiest of the two: with six clips behind each value, the model may expect more of the other.
    assert best["metrics"]["val_top1"] == trials[best["number"]]["metrics"]["val_top1"]
    service.run("hpo", "report", NAME, "-o", folder / "report.html")
    report = (folder / "report.html").read_text()
    assert NAME in report
    assert f"The best configuration (trial {best['number']})" in report
    service.run("hpo", "export", NAME, "-o", folder / "best.yaml")
    exported = yaml.safe_load((folder / "best.yaml").read_text())
    assert exported["objectives"] == {"val_top1": best["metrics"]["val_top1"]}
