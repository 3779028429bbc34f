"""Lines of the worker's log: a configuration, the weights a trial starts from, its progress, what an epoch measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from hpo.activity import progress_line, share, step_of
from hpo.protocol import LoadedWeights, Progress
from hpo.trial import Metrics, ParamValue

from ..process.messages import Preparation
from ..training.progress import TrainingProgress

_LOGGED_METRICS: Final = ("val_top1", "val_loss", "train_loss")
"""What a person looks at first; a worker does not know which metrics its study is about."""

LINE_SECONDS: Final = 30.0
"""The least time from one line about progress to the next."""
_BAR_WIDTH: Final = 20


class ProgressLines:
    """Makes a line of progress at most every `LINE_SECONDS`, also after the end of an epoch, which has its own line."""

    def __init__(self, now: float) -> None:
        """Begin at the time `now`, in seconds."""
        self._at = now

    def epoch_over(self, now: float) -> None:
        """Note that the end of an epoch was logged."""
        self._at = now

    def line(self, progress: Progress | None, now: float) -> str | None:
        """Return the line to log about `progress`; None if there is nothing to log now."""
        if progress is None or now - self._at < LINE_SECONDS:
            return None
        self._at = now
        return logged_progress(progress)


def logged_progress(progress: Progress) -> str:
    """Return where the training is; of a preparation with a bar, `data set: decoding [###-----] 50/200 videos, ...`."""
    line = progress_line(progress)
    if progress.stage != "preparing":
        return line
    step = f"data set: {step_of(progress)} "
    return f"{step}[{'#' * int(_BAR_WIDTH * share(progress)):-<{_BAR_WIDTH}}] {line.removeprefix(step)}"


def progress_of(seen: Preparation | TrainingProgress) -> Progress:
    """Return what a training process has said of its work as it is sent to the API."""
    if isinstance(seen, Preparation):
        return Progress(
            stage="preparing", step=seen.stage, done=seen.done, total=seen.total, seconds_left=seen.seconds_left
        )
    return Progress(
        stage=seen.stage,
        done=seen.batch,
        total=seen.batches,
        epoch=seen.epoch,
        epochs=seen.epochs,
        loss=_finite(seen.loss),
        learning_rate=_finite(seen.learning_rate),
        clips_per_second=_finite(seen.clips_per_second),
        waiting=_finite(seen.waiting),
        memory_bytes=seen.memory_bytes,
        seconds_left=_finite(seen.seconds_left),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def params_line(params: Mapping[str, ParamValue]) -> str:
    """Return the configuration as `lr 0.01, model slowfast_r50`."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )


def epoch_line(epoch: int, epochs: int, metrics: Metrics) -> str:
    """Return `epoch 3/40  val_top1 0.5000  ...  1.2 s`; `epoch` counts from 1."""
    seconds = f"  {metrics['epoch_seconds']:.1f} s" if "epoch_seconds" in metrics else ""
    return f"epoch {epoch}/{epochs}  {metrics_line(metrics)}{seconds}"


def metrics_line(metrics: Metrics) -> str:
    """Return accuracy and losses, as far as they were measured; the first metrics where these are others."""
    shown = [name for name in _LOGGED_METRICS if name in metrics] or list(metrics)[: len(_LOGGED_METRICS)]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in shown)


def weights_line(loaded: LoadedWeights) -> str:
    """Return `starts from k400.pth (SHA-256 0123456789ab): 318 tensors loaded, 2 reset`, and what is worth knowing."""
    counts = {name: getattr(loaded, name).count for name in ("adapted", "reset", "kept", "dropped")}
    shown = [f"{loaded.loaded} tensors loaded", *(f"{count} {name}" for name, count in counts.items() if count)]
    stream = f"{loaded.stream} " if loaded.stream else ""
    first = f"{stream}starts from {loaded.source} (SHA-256 {loaded.sha256[:12]}): {', '.join(shown)}"
    return "; ".join([first, *loaded.notes])
