"""What a model says of every clip of every video: the probabilities that all measures are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from data import ClipBatch, ClipLoader
from data.index.records import ClipRecord

from ..training.scoring import logits_of
from .model import TrainedModel

Progress = Callable[[int, int], None]
"""Called with the number of videos scored so far and of all videos."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """The probabilities of N videos, each seen as V clips, over C classes."""

    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    """The source of each video."""
    labels: NDArray[np.int64]
    """(N,)"""
    clips: NDArray[np.float32]
    """(N, V, C): softmax outputs, averaged over the crops of each clip."""
    frames: NDArray[np.int64]
    """(N, V, 2): the first and the last frame that each clip shows, counted from 0."""

    @property
    def videos(self) -> NDArray[np.float64]:
        """Return (N, C): the mean over the clips of each video."""
        means: NDArray[np.float64] = self.clips.mean(1, dtype=np.float64)
        return means

    def with_clips(self, clips: NDArray[np.float32]) -> Self:
        """Return the same videos with other probabilities."""
        return replace(self, clips=clips)

    def with_frames(self, frames: NDArray[np.int64]) -> Self:
        """Return the same scores with other places of their clips."""
        return replace(self, frames=frames)


def scores_of(
    model: TrainedModel,
    loader: ClipLoader,
    records: Mapping[str, ClipRecord],
    *,
    crops: int,
    progress: Progress | None = None,
) -> Scores:
    """Return what a model says of all videos of a loader, in its order.

    Args:
        records: the clips of the loader by id, for their groups.
    """
    ids: list[str] = []
    labels: list[torch.Tensor] = []
    found: list[torch.Tensor] = []
    with torch.inference_mode():
        for batch in loader:
            ids += batch.ids
            labels.append(batch.labels.cpu())
            found.append(_probabilities(model, batch, crops).cpu())
            if progress is not None:
                progress(len(ids), loader.num_clips)
    return Scores(
        class_names=model.class_names,
        ids=tuple(ids),
        groups=tuple(records[id_].group for id_ in ids),
        labels=torch.cat(labels).numpy(),
        clips=torch.cat(found).numpy(),
        frames=np.stack([loader.shown(id_)[::crops] for id_ in ids]),
    )


def _probabilities(model: TrainedModel, batch: ClipBatch, crops: int) -> torch.Tensor:
    """Return (N, clips, classes) of a batch."""
    logits = logits_of(
        model.module, batch, device=model.runtime.device, precision=model.precision, most_clips=model.most_clips
    )
    probabilities: torch.Tensor = logits.softmax(1).view(len(batch.ids), -1, crops, logits.shape[1]).mean(2)
    return probabilities


def frame_document(scores: Scores) -> dict[str, Any]:
    """Return the scores as plain data: of each clip ("frame-level") and of each video, by the video's id."""
    names, means = scores.class_names, scores.videos
    return {
        "classes": list(names),
        "videos": {
            id_: {
                "label": names[int(scores.labels[place])],
                "prediction": names[int(means[place].argmax())],
                "scores": _rounded(means[place]),
                "frames": [
                    {"first": int(first), "last": int(last), "scores": _rounded(clip)}
                    for (first, last), clip in zip(scores.frames[place], scores.clips[place], strict=True)
                ],
            }
            for place, id_ in enumerate(scores.ids)
        },
    }


def _rounded(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 7) for value in values]
