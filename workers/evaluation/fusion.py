"""Late fusion: the weighted mean of what separately trained models say of the same videos.

Two-stream practice (Simonyan and Zisserman, NIPS 2014; TSN, ECCV 2016) adds the softmax outputs of an RGB and a flow
network with fixed weights. Here the weights are chosen on validation videos, never on those of the test list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .views import Scores

_STEPS: Final = {2: 20, 3: 20, 4: 10}
"""Into how many steps the weights of that many models are divided; of more models 6."""
_LEAST_PROBABILITY: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each model counts; they add up to 1."""

    values: tuple[float, ...]
    top1: float
    """Of the fused validation scores."""


def fuse(parts: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """Return the weighted mean of the probabilities of the same videos.

    Models that see another number of clips are fused by their means over the clips of a video.

    Raises:
        CheckpointError: the models are not of the same classes, or the scores not of the same videos.
    """
    first = parts[0]
    for other in parts[1:]:
        if other.class_names != first.class_names:
            raise CheckpointError(
                f"models of {len(first.class_names)} and {len(other.class_names)} classes cannot be fused: "
                "train them on the same classes"
            )
        if other.ids != first.ids:
            raise CheckpointError("the models were scored on different videos: they need the same data set and split")
    share = np.asarray(weights, np.float64) / sum(weights)
    same_views = all(part.clips.shape == first.clips.shape for part in parts)
    clips = [part.clips if same_views else part.videos[:, None].astype(np.float32) for part in parts]
    mean = sum(float(one) * clip.astype(np.float64) for one, clip in zip(share, clips, strict=True))
    fused = first.with_clips(np.asarray(mean, np.float32))
    return fused if same_views else fused.with_frames(fused.frames[:, :1])


def choose_weights(parts: Sequence[Scores]) -> Weights:
    """Return the weights with the best top-1 on validation videos; among equals those with the lowest loss.

    Raises:
        CheckpointError: the scores do not belong together.
    """
    fuse(parts, [1.0] * len(parts))  # checks them
    labels, videos = parts[0].labels, [part.videos for part in parts]
    best: tuple[tuple[float, float], tuple[float, ...]] | None = None
    for values in _grid(len(parts)):
        mean = sum(weight * scores for weight, scores in zip(values, videos, strict=True))
        found = _quality(np.asarray(mean), labels)
        if best is None or found > best[0]:
            best = (found, values)
    assert best is not None  # noqa: S101 - a grid has points
    return Weights(values=best[1], top1=best[0][0])


def _quality(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return top-1 and the negated mean cross-entropy: the higher, the better."""
    own = scores[np.arange(len(labels)), labels]
    right = float((scores.argmax(1) == labels).mean())
    return right, float(np.log(np.maximum(own, _LEAST_PROBABILITY)).mean())


def _grid(models: int) -> Iterator[tuple[float, ...]]:
    """Yield all weights of so many models in equal steps that add up to 1."""
    steps = _STEPS.get(models, 6)
    for bars in combinations(range(steps + models - 1), models - 1):
        places = (-1, *bars, steps + models - 1)
        yield tuple((high - low - 1) / steps for low, high in pairwise(places))
