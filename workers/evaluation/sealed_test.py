"""Score final weights on the sealed test list: `hpo evaluate --final`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from data import ClipBatch, Dataset, DatasetSpec, open_dataset

from ..device.detection import Device
from ..errors import CheckpointError
from ..training.inputs import clip_spec
from ..training.scoring import score
from .model import TrainedModel

DEFAULT_CLIPS = 10
"""Clips per video, evenly spaced: the usual number of temporal views (SlowFast, ICCV 2019)."""
Progress = Callable[[int, int], None]
"""Called with the number of videos scored so far and of all videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalScore:
    """The score on the test list of one split."""

    top1: float
    top5: float
    interval: tuple[float, float]
    """95 % score interval of `top1` (Wilson, 1927)."""
    videos: int
    clips: int
    crops: int
    """`clips` times `crops` views of each video were averaged."""
    chance: float
    """Top-1 of guessing: one over the number of classes."""
    dataset_version: str
    same_dataset: bool
    """Whether the data set has not changed since the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Why a test list is opened, and how its videos are seen."""

    reason: str
    clips: int = DEFAULT_CLIPS
    crops: int = 1
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else the record of the opening says, such as its `id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalTest:
    """A checkpoint and the data set whose test list it is to be scored on, the seal still whole."""

    model: TrainedModel
    dataset: Dataset

    @classmethod
    def prepare(cls, checkpoint: Path, dataset: DatasetSpec, *, cache_dir: Path, device: Device) -> FinalTest:
        """Open checkpoint and data set. Sets the thread count of this process.

        Raises:
            CheckpointError: the checkpoint cannot be read, or was made for other classes.
            data.DatasetError, models.ModelError: the data set or the model cannot be used.
        """
        model = TrainedModel.open(checkpoint, device)
        opened = open_dataset(dataset, cache_dir=cache_dir)
        if opened.class_names != model.class_names:
            raise CheckpointError(
                f"{checkpoint} was trained for other classes ({len(model.class_names)}) than {dataset.root} has "
                f"({opened.num_classes}); give the data set that it was trained on"
            )
        return cls(model=model, dataset=opened)

    def score(self, opening: Opening, *, progress: Progress | None = None) -> FinalScore:
        """Break the seal, for a reason that is recorded, and return the score.

        The softmax outputs of a video's views, `clips` evenly spaced clips in `crops` crops each, are averaged.
        """
        model = self.model
        loader = self.dataset.test_loader(
            reason=opening.reason,
            clip=clip_spec(model.config),
            batch_size=model.config.batch_size,
            device=model.runtime.device,
            views=opening.clips,
            crops=opening.crops,
            about=opening.about,
        )
        result = score(
            model.module,
            loader,
            device=model.runtime.device,
            precision=model.precision,
            most_clips=model.most_clips,
            each=None if progress is None else _counting(progress, loader.num_clips),
        )
        right = round(result.top1 * result.videos)
        wilson = binomtest(right, result.videos).proportion_ci(method="wilson")
        return FinalScore(
            top1=result.top1,
            top5=result.top5,
            interval=(float(wilson.low), float(wilson.high)),
            videos=result.videos,
            clips=opening.clips,
            crops=opening.crops,
            chance=1 / self.dataset.num_classes,
            dataset_version=self.dataset.version,
            same_dataset=self.dataset.version == model.dataset_version,
        )


def _counting(progress: Progress, total: int) -> Callable[[ClipBatch], None]:
    done = 0

    def each(batch: ClipBatch) -> None:
        nonlocal done
        done += len(batch.ids)
        progress(done, total)

    return each
