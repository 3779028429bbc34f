"""A data set and a network so small that an epoch takes a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.synthetic.dataset import make_demo_dataset
from hpo.spec import TrainingConfig, VideoTask
from workers.training.latency import LATENCY_METRICS
from workers.training.progress import TrainingProgress

CLASSES = ("SlideLeft", "SlideRight")
BASE: dict[str, Any] = {
    "model": "slowfast_r18",
    "model.alpha": 4,
    "model.width": 8,
    "model.beta_inv": 4,
    "batch_size": 4,
    "clip.frames": 8,
    "clip.stride": 1,
    "clip.size": 24,
    "lr": 0.02,
    "dropout": 0.3,
}
PROGRESS = TrainingProgress(
    stage="training",
    epoch=2,
    epochs=3,
    batch=5,
    batches=9,
    loss=1.25,
    learning_rate=0.01,
    clips_per_second=80.0,
    waiting=0.25,
    memory_bytes=2**30,
    seconds_left=40.0,
)


def make_videos(folder: Path) -> Path:
    """Return the folder of 24 new videos: 12 to train on, 4 to validate, 8 sealed."""
    return make_demo_dataset(
        folder, classes=CLASSES, groups=6, clips_per_group=2, frames=(8, 10), size=(32, 32), seed=1
    )


def tiny_config(**changes: Any) -> TrainingConfig:
    """Return the configuration; `lr=...`, or `**{"clip.size": ...}`, changes it."""
    return TrainingConfig.from_flat({**BASE, **changes})


def tiny_task(root: Path, *, epochs: int = 2, **changes: Any) -> VideoTask:
    """Return the task on `make_videos`."""
    return VideoTask.model_validate(
        {"dataset": {"root": str(root), "short_side": 32}, "epochs": epochs, "base": BASE, **changes}
    )


def without_timing(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics without the timings, which differ between runs."""
    return {name: value for name, value in metrics.items() if name not in TIMING}


TIMING = ("epoch_seconds", "validation_seconds", "clips_per_second", "peak_memory_gib", *LATENCY_METRICS)
