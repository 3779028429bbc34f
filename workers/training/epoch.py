"""The end of an epoch: validation, and the point that it adds to the learning curve."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from .metrics import Sums
from .scoring import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """A finished epoch: `epoch` counts from 1, `seconds` is its wall time, validation included."""

    epoch: int
    metrics: dict[str, float]
    """By the names of `hpo.spec.tasks.video`."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """How the validation videos were classified after `epoch`, from 1."""

    epoch: int
    counts: Mapping[tuple[int, int], int]
    """Numbers of videos by their class and the class that the model said, both from 0; zeros are left out."""

    def to_state(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"epoch": self.epoch, "cells": [[*pair, count] for pair, count in self.counts.items()]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_state` wrote."""
        return cls(epoch=state["epoch"], counts={(true, said): count for true, said, count in state["cells"]})


class Stopwatch:
    """Wall time of the running epoch, without the time between two runs of the loop. Stands still when made."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Continue from `seconds`, which an earlier process spent on the epoch."""
        self._before = seconds
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Time spent so far."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._before + running

    def start(self) -> None:
        """Let it run."""
        self.stop()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Let it stand still; the time so far stays."""
        self._before, self._started = self.seconds, None


def epoch_metrics(
    training: Sums,
    validation: Score | None,
    *,
    model: nn.Module,
    peak_bytes: int,
    training_seconds: float,
    epoch_seconds: float,
) -> dict[str, float]:
    """Return every metric of `hpo.spec.tasks.video`, by its name; those of a validation only where there was one."""
    return {
        **({} if validation is None else validation_metrics(validation)),
        "train_top1": training.top1,
        "train_loss": training.loss,
        "peak_memory_gib": peak_bytes / 2**30,
        "parameters_millions": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        "epoch_seconds": epoch_seconds,
        "validation_seconds": epoch_seconds - training_seconds,
        "clips_per_second": training.samples / training_seconds,
    }


def validation_metrics(validation: Score) -> dict[str, float]:
    """Return the metrics that a validation measures."""
    return {
        "val_top1": validation.top1,
        "val_top5": validation.top5,
        "val_loss": validation.loss,
        "val_clips": float(validation.videos),
    }


def is_best(curve: Sequence[EpochResult]) -> bool:
    """Return whether the last point of a curve, which has one, has a higher `val_top1` than all before it."""
    *before, last = (result.metrics.get("val_top1", -math.inf) for result in curve)
    return last > max(before, default=-math.inf)


def curve_to_state(curve: list[EpochResult]) -> list[dict[str, Any]]:
    """Return a learning curve as plain values."""
    return [{"epoch": r.epoch, "metrics": dict(r.metrics), "seconds": r.seconds} for r in curve]


def curve_from_state(state: list[dict[str, Any]]) -> list[EpochResult]:
    """Return the learning curve that :func:`curve_to_state` wrote."""
    return [EpochResult(epoch=r["epoch"], metrics=dict(r["metrics"]), seconds=r["seconds"]) for r in state]
