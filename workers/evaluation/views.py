"""What a model says of every clip of every video: the probabilities that all measures are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from data import ClipBatch, ClipLoader
from data.index.records import ClipRecord

from ..errors import EvaluationError
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

    def save(self, file: IO[bytes]) -> None:
        """Write them as an archive of NumPy, for another process."""
        np.savez(
            file,
            class_names=np.array(self.class_names),
            ids=np.array(self.ids),
            groups=np.array(self.groups),
            labels=self.labels,
            clips=self.clips,
            frames=self.frames,
        )

    @classmethod
    def load(cls, file: IO[bytes]) -> Self:
        """Read what `save` has written; no code in it is run."""
        with np.load(file, allow_pickle=False) as kept:
            return cls(
                class_names=tuple(kept["class_names"].tolist()),
                ids=tuple(kept["ids"].tolist()),
                groups=tuple(kept["groups"].tolist()),
                labels=kept["labels"],
                clips=kept["clips"],
                frames=kept["frames"],
            )

    @classmethod
    def joined(cls, parts: Sequence[Scores], *, ids: Sequence[str]) -> Scores:
        """Return the scores of all videos of some parts, which follow each other.

        Args:
            ids: of the videos of all parts.

        Raises:
            EvaluationError: the parts are of other videos.
        """
        found = tuple(id_ for part in parts for id_ in part.ids)
        if found != tuple(ids):
            raise EvaluationError(
                f"the parts of the evaluation have {len(found)} videos, which are not the {len(ids)} of the list in "
                "their order; start it again when nothing writes to the data set"
            )
        return cls(
            class_names=parts[0].class_names,
            ids=found,
            groups=tuple(group for part in parts for group in part.groups),
            labels=np.concatenate([part.labels for part in parts]),
            clips=np.concatenate([part.clips for part in parts]),
            frames=np.concatenate([part.frames for part in parts]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of the batches of a loader is scored: the `number`-th of `of` parts (from 0).

    The parts are of whole batches, so that a device sees the same batches as if it scored all of them.
    """

    number: int = 0
    of: int = 1

    def batches(self, count: int) -> tuple[int, int]:
        """Return the first of `count` batches that belongs to the part, and the first that does not any more."""
        return count * self.number // self.of, count * (self.number + 1) // self.of


WHOLE = Share()


def scores_of(
    model: TrainedModel,
    loader: ClipLoader,
    records: Mapping[str, ClipRecord],
    *,
    crops: int,
    share: Share = WHOLE,
    progress: Progress | None = None,
) -> Scores | None:
    """Return what a model says of the videos of a loader, in its order; None where its share is of no video.

    Args:
        records: the clips of the loader by id, for their groups.
        share: the part that is scored; its progress is out of all videos.
    """
    ids: list[str] = []
    labels: list[torch.Tensor] = []
    found: list[torch.Tensor] = []
    first, end = share.batches(len(loader))
    if first == end:
        return None
    with torch.inference_mode(), closing(loader.batches(0, first)) as batches:  # type: ignore[type-var]  # generator
        for batch in islice(batches, end - first):
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
