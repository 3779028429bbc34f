"""Lines of the worker's log: the configuration of a trial, and what an epoch measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpo.trial import Metrics, ParamValue

_LOGGED_METRICS: Final = ("val_top1", "val_loss", "train_loss")
"""What a person looks at first; a worker does not know which metrics its study is about."""


def params_line(params: Mapping[str, ParamValue]) -> str:
    """Return the configuration as `lr 0.01, model slowfast_r50`."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )


def epoch_line(epoch: int, epochs: int, metrics: Metrics) -> str:
    """Return `epoch 3/40  val_top1 0.5000  ...  1.2 s`; `epoch` counts from 1."""
    return f"epoch {epoch}/{epochs}  {metrics_line(metrics)}  {metrics['epoch_seconds']:.1f} s"


def metrics_line(metrics: Metrics) -> str:
    """Return accuracy and losses, as far as they were measured."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in _LOGGED_METRICS if name in metrics)
