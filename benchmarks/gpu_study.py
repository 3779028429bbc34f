"""The part of `benchmarks/gpu.py` that needs the service: short trials, some of which ask for too much memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from hpo.settings import Settings
from hpo.spec import TrainingConfig, VideoTask, parse_spec
from workers.training.size import update_size

from .fine_tuning_study import program, service
from .gpu_speed import Place

NAME: Final = "short-trials"
_IDLE_SECONDS: Final = "10"
_CLASSES: Final = 4
"""Of the pictures; a few more change the memory by kilobytes."""


def study(place: Place) -> Iterator[dict[str, Any]]:
    """Run a study on generated pictures to its end, and tell what became of its trials and of the time between them."""
    trials = 3 if place.tiny else 32
    with tempfile.TemporaryDirectory(prefix="hpo-gpu-") as folder:
        pictures, home = Path(folder) / "pictures", Path(folder) / "home"
        command = [str(Path(sys.executable).with_name("hpo")), "data", "make-demo", str(pictures), "--images", "60"]
        subprocess.run(command, check=True, capture_output=True)
        settings = Settings(home=home)
        home.mkdir()
        spec = _spec(pictures, trials, tiny=place.tiny)
        with service(settings) as client:
            client.create_study(spec)
            device = ["--cpu", "--threads", "1"] if place.device.type == "cpu" else ["--gpu", "0"]
            with program(settings, "hpo-worker", [*device, "--exit-when-idle", _IDLE_SECONDS]) as worker:
                while client.study(NAME)["state"] == "active" and worker.poll() is None and not place.is_over:
                    time.sleep(0.5)
            found = client.trials(NAME)
    states: dict[str, int] = {}
    for trial in found:
        states[trial["state"]] = states.get(trial["state"], 0) + 1
    yield {
        "what": "study",
        "trials": len(found),
        "states": states,
        "lost": sum(trial["state"] not in ("completed", "stopped") for trial in found),
        "idle_share": _idle_share(found),
        "right": len(found) == trials and states.get("completed", 0) + states.get("stopped", 0) == trials,
    }
    yield from peaks(spec, found)


def peaks(spec: dict[str, Any], trials: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield for each batch size what an update was counted to take, and what trials took at most, in GiB.

    A batch that does not fit is computed in parts, and takes less than was counted.
    """
    task = parse_spec(spec).task
    assert isinstance(task, VideoTask)  # noqa: S101 - images are one
    for size in spec["space"]["batch_size"]["choices"]:
        params = {"batch_size": size, "lr": 0.01}
        config = TrainingConfig.from_flat(task.config(params, seed=0))
        taken = [one["peak_memory_bytes"] for one in trials if one["params"]["batch_size"] == size]
        taken = sorted(one for one in taken if one is not None)
        yield {
            "what": f"peak of memory, batches of {size}",
            "trials": len(taken),
            "counted_gib": round(update_size(config, num_classes=_CLASSES).bytes / 2**30, 3),
            "least_gib": round(taken[0] / 2**30, 3) if taken else None,
            "most_gib": round(taken[-1] / 2**30, 3) if taken else None,
        }


def _spec(pictures: Path, trials: int, *, tiny: bool) -> dict[str, Any]:
    sizes = [4, 8] if tiny else [32, 256, 2048]
    return {
        "name": NAME,
        "objectives": [{"metric": "val_top1"}],
        "task": {
            "kind": "image",
            "dataset": {"root": str(pictures)},
            "epochs": 1 if tiny else 2,
            "base": {"model": "resnet18" if tiny else "resnet50", "clip.size": 32 if tiny else 224},
        },
        "space": {
            "lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
            "batch_size": {"type": "ordinal", "choices": sizes},
        },
        "optimizer": {"name": "random", "seed": 0},
        "early_stopping": {"name": "none"},
        "budget": {"trials": trials},
    }


def _idle_share(trials: list[Any]) -> float | None:
    """Return the share of the time from the first start to the last end in which no trial ran."""
    spans = sorted(
        (datetime.fromisoformat(str(trial["started_at"])), datetime.fromisoformat(str(trial["finished_at"])))
        for trial in trials
        if trial.get("started_at") and trial.get("finished_at")
    )
    if len(spans) < 2:
        return None
    whole = (max(end for _, end in spans) - spans[0][0]).total_seconds()
    busy = sum((end - start).total_seconds() for start, end in spans)
    return round(max(0.0, 1 - busy / whole), 4)
