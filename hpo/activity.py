"""How far a trial is and what a worker does, in words: for the worker's log, the `hpo` command and the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .protocol import Progress

FORGOTTEN_SECONDS: Final = 24 * 3600.0
"""A worker that was not heard of for so long is only counted."""
_STEPS: Final = {
    "scan": "reading the videos",
    "reuse": "checking what earlier caches hold",
    "prepare": "decoding",
    "flow": "computing optical flow",
    "wait": "waiting for another process",
}
"""The steps of a preparation, as `data` names them."""
_MOST_DIGITS: Final = 1e6
"""From here on, a loss is written with an exponent: the largest number has 309 digits."""


def stored_progress(stored: Mapping[str, Any] | None) -> Progress | None:
    """Return progress as it was stored; None if there is none, or if it is of another release."""
    if stored is None:
        return None
    from pydantic import ValidationError

    from .protocol import Progress

    try:
        return Progress.model_validate(stored)
    except ValidationError:
        return None


def origin_sentence(origin: Mapping[str, str]) -> str:
    """Return where a result from elsewhere was measured, such as `trial 3 of the Optuna study sweep`."""
    return f"{origin.get('trial', '?')} of {origin.get('source', 'elsewhere')}"


def progress_line(progress: Progress) -> str:
    """Return how far an attempt is, as `epoch 3/40, batch 120/300: loss 1.2345, ..., 12 min left`."""
    details = ", ".join(filter(None, (measured(progress), time_left(progress))))
    separator = ", " if progress.stage == "preparing" else ": "
    return f"{place(progress)}{separator}{details}" if details else place(progress)


def place(progress: Progress) -> str:
    """Return where an attempt is: `epoch 3/40, batch 120/300`, or `data set: decoding 50/200 videos`."""
    if progress.stage == "preparing":
        return f"data set: {step_of(progress)} {progress.done}/{progress.total} videos"
    part = "batch" if progress.stage == "training" else "validation batch"
    return f"epoch {progress.epoch}/{progress.epochs}, {part} {progress.done}/{progress.total}"


def share(progress: Progress) -> float:
    """Return how much is done of this step, from 0 to 1."""
    return min(1.0, progress.done / progress.total) if progress.total else 1.0


def step_of(progress: Progress) -> str:
    """Return what is done of the preparation, such as `decoding`."""
    return _STEPS.get(progress.step, progress.step)


def measured(progress: Progress) -> str:
    """Return what an epoch has measured so far, as `loss 1.2345, lr 0.01, 85 clips/s, ...`, as far as it is known."""
    parts = (
        ("loss {:.4f}" if abs(progress.loss or 0) < _MOST_DIGITS else "loss {:.4g}", progress.loss),
        ("lr {:.3g}", progress.learning_rate),
        ("{:.3g} clips/s", progress.clips_per_second),
        ("{:.0f} % waiting for data", None if progress.waiting is None else 100 * progress.waiting),
        ("{:.1f} GiB", None if progress.memory_bytes is None else progress.memory_bytes / 2**30),
    )
    return ", ".join(words.format(value) for words, value in parts if value is not None)


def time_left(progress: Progress) -> str:
    """Return `12 min left`; an empty string where that is not known."""
    return "" if progress.seconds_left is None else f"{duration(progress.seconds_left)} left"


def duration(seconds: float) -> str:
    """Return a time as a person says it: `40 s`, `3 min`, `2 h 5 min` or `3 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes / (24 * 60):.0f} days"


def with_devices(gpus: int, nodes: int) -> str:
    """Return a phrase that follows `no worker`: what a worker must have for trials of more than one device."""
    several = "" if gpus == 1 else f" with {gpus} GPUs"
    return several if nodes == 1 else f"{several} on each of {nodes} machines"
