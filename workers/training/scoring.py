"""Score a model on every video of a loader: deterministic, complete, counted in videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import ClipBatch
from data.clips.batch import Clips

from .metrics import Sums, best_class
from .parallel import ALONE, World, dealt
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
    confusion: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Numbers of videos by their class and the class that the model said, both from 0; zeros are left out."""


def score(
    model: nn.Module,
    batches: Iterable[ClipBatch],
    *,
    device: torch.device,
    precision: Precision,
    most_clips: int | None = None,
    each: Callable[[ClipBatch], None] | None = None,
    world: World = ALONE,
) -> Score:
    """Score `model` in evaluation mode; it is left in the mode that it was in.

    A video of several views is scored by the mean of their softmax outputs.

    Args:
        most_clips: clips that the model sees at once, where a batch has more: all views of a video are in one.
        each: called before every batch.
        world: the ranks that score together: each has every so many-th of the batches.
    """
    scored: list[tuple[Sums, Tensor]] = []
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                if each is not None:
                    each(batch)
                logits = logits_of(model, batch, device=device, precision=precision, most_clips=most_clips)
                scores = _over_views(logits, batch.views)
                sums = Sums(device)
                sums.add(F.cross_entropy(scores, batch.labels), scores, batch.labels)
                scored.append((sums, torch.stack([batch.labels, best_class(scores)])))
    finally:
        model.train(training)
    # Kept on the device until here, so that no batch waits for its numbers.
    found = dealt(world.gathered([(sums.state(), pairs.cpu()) for sums, pairs in scored]))
    sums = Sums.joined((state for state, _ in found), torch.device("cpu"))
    said = torch.cat([pairs for _, pairs in found], dim=1).tolist() if found else [[], []]
    counted = Counter(zip(*said, strict=True))
    return Score(top1=sums.top1, top5=sums.top5, loss=sums.loss, videos=sums.samples, confusion=dict(counted))


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
