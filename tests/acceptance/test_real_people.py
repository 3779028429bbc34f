"""A study on real videos of real people: the best SlowFast recognises the actions of actors it has never seen."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .conftest import Service, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _spec(root: Path) -> dict[str, Any]:
    return {
        "name": "real-people",
        "objectives": [{"metric": "val_top1"}],
        "task": {
            "dataset": {"root": str(root), "split": 1, "short_side": 64},
            "epochs": 30,
            "base": {
                "model": "slowfast_r18",
                "model.width": 16,
                "batch_size": 8,
                "nesterov": True,
                "clip": {"frames": 16, "size": 48},
            },
        },
        "space": {
            "lr": {"type": "float", "low": 0.005, "high": 0.1, "log": True},
            "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "clip.stride": {"type": "int", "low": 1, "high": 3},
            "model.beta_inv": {"type": "ordinal", "choices": [2, 4]},
        },
        "early_stopping": {"name": "asha", "min_epochs": 10, "reduction": 2, "startup_trials": 2},
        "budget": {"trials": 6},
    }


def test_the_best_slowfast_knows_actions_of_unseen_actors(service: Service, shared_data: Path, tmp_path: Path) -> None:
    with service.client() as client, ExitStack() as stack:
        client.create_study(_spec(shared_data / "weizmann_mini"))
        for number in range(2):
            stack.enter_context(service.worker("--name", f"worker-{number}"))
        wait_for(lambda: client.study("real-people")["state"] == "completed", seconds=800)
        metrics = client.best("real-people")["metrics"]
        assert metrics is not None
        assert metrics["val_top1"] >= 0.9
    service.run("hpo", "export", "real-people", "-o", tmp_path / "best.yaml")
    service.run("hpo", "evaluate", tmp_path / "best.yaml", "--final")
    score = json.loads((tmp_path / "best.final.json").read_text())
    assert score["videos"] == 44
    assert score["top1"] >= 0.9
