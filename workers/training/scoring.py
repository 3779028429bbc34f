"""Score a model on every video of a loader: deterministic, complete, counted in videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch
from data.clips.loader import Clips

from .metrics import Sums
from .precision import Precision, autocast

_LEAST_PROBABILITY = 1e-30
"""Keeps the logarithm of a mean probability finite where every view's underflowed to 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Result over `videos` videos."""

    top1: float
    top5: float
    loss: float
    """Mean cross-entropy in nats, without label smoothing."""
    videos: int


def score(
    model: nn.Module,
    batches: Iterable[ClipBatch],
    *,
    device: torch.device,
    precision: Precision,
    most_clips: int | None = None,
    each: Callable[[ClipBatch], None] | None = None,
) -> Score:
    """Score `model` in evaluation mode; it is left in the mode that it was in.

    A video of several views is scored by the mean of their softmax outputs.

    Args:
        most_clips: clips that the model sees at once, where a batch has more: all views of a video are in one.
        each: called before every batch.
    """
    sums = Sums(device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                if each is not None:
                    each(batch)
                logits = logits_of(model, batch, device=device, precision=precision, most_clips=most_clips)
                scores = _over_views(logits, batch.views)
                sums.add(F.cross_entropy(scores, batch.labels), scores, batch.labels)
    finally:
        model.train(training)
    return Score(top1=sums.top1, top5=sums.top5, loss=sums.loss, videos=sums.samples)


def logits_of(
    model: nn.Module, batch: ClipBatch, *, device: torch.device, precision: Precision, most_clips: int | None = None
) -> Tensor:
    """Return float32 (N * views, classes): what `model` says of each view of a batch.

    Args:
        most_clips: clips that the model sees at once, where a batch has more.
    """
    with autocast(precision, device):
        logits = torch.cat([model(clips) for clips in _parts(batch.clips, most_clips)])
    return logits.float()


def _parts(clips: Clips, most: int | None) -> Iterator[Clips]:
    """Yield clips, or pairs of them, `most` at a time."""
    count = len(clips) if isinstance(clips, Tensor) else len(clips[0])
    for start in range(0, count, most or count):
        part = slice(start, start + (most or count))
        yield clips[part] if isinstance(clips, Tensor) else (clips[0][part], clips[1][part])


def _over_views(logits: Tensor, views: int) -> Tensor:
    """Turn (N * views, classes) into (N, classes) whose softmax is the views' mean probability."""
    if views == 1:
        return logits
    probabilities: Tensor = logits.softmax(1).view(-1, views, logits.shape[1]).mean(1)
    return probabilities.clamp_min(_LEAST_PROBABILITY).log()
