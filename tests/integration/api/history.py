"""A study with a past: completed, early-stopped, failed, running and waiting trials with curves."""

from __future__ import annotations

import math
from typing import Any

from hpo.protocol import ClaimRequest, FinishRequest, ReportRequest
from hpo.store import lifecycle

from .service import Service, claim_body, fence, finished, measured

EPOCHS = 10


def confusion(step: int, classes: int = 12) -> dict[str, Any]:
    """Return a confusion matrix in which each class has eight videos, of which three are taken for the next class."""
    return {
        "step": step,
        "class_names": [f"Class{place}" for place in range(classes)],
        "videos": [8] * classes,
        "cells": [cell for one in range(classes) for cell in ([one, one, 5], [one, (one + 1) % classes, 3])],
    }


def make_history(service: Service, *, trials: int = 10, name: str = "demo") -> int:
    """Return the id of a new study of `trials` trials: 4 out of memory, the last but one running, the last waiting."""
    study_id = service.create(name=name, constraints=["val_loss <= 0.9"])
    points = [{"lr": 1e-4 * 2.2**i, "dropout": 0.07 * i} for i in range(trials)]
    service.suggest(study_id, points=points)
    for number in range(trials - 1):
        _run(service, number, last=number == trials - 2)
    return study_id


def _run(service: Service, number: int, *, last: bool) -> None:
    with service.database.transaction() as connection:
        request = ClaimRequest.model_validate(claim_body(f"worker-{number % 3}"))
        claimed = lifecycle.claim(connection, request, lease_seconds=60)
        assert claimed is not None
        lease: dict[str, Any] = claimed.model_dump(mode="json")
        best = 0.95 - 0.12 * abs(math.log(claimed.params["lr"] / 0.01) / 3) ** 2  # type: ignore[operator] # a float
        if number == 4:
            body = {"outcome": "failed", "failure_kind": "oom", "failure_message": "CUDA out of memory", **fence(lease)}
            lifecycle.finish(connection, claimed.trial_id, FinishRequest.model_validate(body))
            return
        steps = 4 if number in (1, 6) or last else EPOCHS
        curve = [best * (1 - math.exp(-step / 3)) for step in range(1, steps + 1)]
        for step, value in enumerate(curve, start=1):
            report = ReportRequest.model_validate(measured(lease, step, value))
            lifecycle.report(connection, claimed.trial_id, report)
        if not last:
            body = finished(lease, curve[-1], checkpoint=f"/c/{number}.pt", dataset_version="d1")
            body["metrics"]["val_loss"] = 1 - curve[-1]
            body |= {"peak_memory_bytes": 2**30 + number, "environment": {"python": "3.11"}}
            body["confusion"] = confusion(steps)
            body["outcome"] = "completed" if steps == EPOCHS else "stopped"
            lifecycle.finish(connection, claimed.trial_id, FinishRequest.model_validate(body))
