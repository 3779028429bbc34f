"""The metrics a worker reports, by name. Objectives and constraints are written in these."""

from __future__ import annotations

from typing import Final, Literal

Direction = Literal["maximize", "minimize"]

METRICS: Final[dict[str, tuple[Direction, str]]] = {
    "val_top1": ("maximize", "share of validation clips whose best class is right, 0 to 1"),
    "val_top5": (
        "maximize",
        "share of validation clips with the right class among the best five, 0 to 1",
    ),
    "val_loss": ("minimize", "mean cross-entropy on the validation clips, in nats"),
    "train_top1": ("maximize", "share of training clips classified right while training, 0 to 1"),
    "train_loss": ("minimize", "mean training loss of the epoch, in nats"),
    "epoch_seconds": ("minimize", "wall time of the epoch, validation included, in seconds"),
    "clips_per_second": ("maximize", "training clips per second"),
    "peak_memory_gib": ("minimize", "peak memory of the training process, in GiB"),
    "parameters_millions": ("minimize", "parameters of the model, in millions"),
}
"""Name to (its natural direction, what it is)."""
SHARES: Final = frozenset({"val_top1", "val_top5", "train_top1"})
"""Metrics that lie between 0 and 1."""


def beyond_share(metric: str, value: float | None) -> str | None:
    """Say that `value` is none that `metric` can have; None where it may be."""
    if value is None or metric not in SHARES or 0 <= value <= 1:
        return None
    return f"{value:g} is out of reach: {metric} is a share from 0 to 1, so 90 % is 0.9"
