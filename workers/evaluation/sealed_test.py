"""Score final weights on the sealed test list, or on the validation list, which no seal protects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import ClipLoader, Dataset, DatasetSpec, open_dataset
from data.clips.crops import CROPS
from hpo.errors import SetupError

from ..device.detection import Device
from ..errors import CheckpointError
from ..training.inputs import clip_spec
from .model import TrainedModel
from .views import Progress, Scores, scores_of

DEFAULT_CLIPS = 10
"""Clips per video, evenly spaced: the usual number of temporal views (SlowFast, ICCV 2019)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How a video is seen: `clips` evenly spaced clips in `crops` crops each, whose softmax outputs are averaged."""

    clips: int = DEFAULT_CLIPS
    crops: int = 1

    def __post_init__(self) -> None:
        """Refuse crops that no loader makes, before anything is done for them.

        Raises:
            SetupError: there are no such crops.
        """
        if self.crops not in CROPS:
            raise SetupError(f"crops is {self.crops}; it must be one of {CROPS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Why the test list is opened."""

    reason: str
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else the record of the opening says, such as its `id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A checkpoint and the data set that it is to be scored on, the seal of its test list still whole."""

    model: TrainedModel
    dataset: Dataset

    @classmethod
    def prepare(cls, checkpoint: Path, dataset: DatasetSpec, *, cache_dir: Path, device: Device) -> Evaluation:
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

    @property
    def same_dataset(self) -> bool:
        """Whether the data set has not changed since the training."""
        return self.dataset.version == self.model.dataset_version

    def test(self, opening: Opening, views: Views, *, progress: Progress | None = None) -> Scores:
        """Break the seal of the test list, for a reason that is recorded, and return the scores of its videos."""
        loader = self.dataset.test_loader(reason=opening.reason, about=opening.about, **self._seen(views))
        return self._scores(loader, views, progress)

    def validation(self, views: Views, *, progress: Progress | None = None) -> Scores:
        """Return the scores of the validation videos.

        Raises:
            CheckpointError: the model was trained on them.
        """
        if self.model.refit:
            raise CheckpointError(
                "the checkpoint is a refit, which was trained on the validation videos as well: its scores on them say "
                "nothing; score it on the test list"
            )
        return self._scores(self.dataset.validation_loader(**self._seen(views)), views, progress)

    def _seen(self, views: Views) -> dict[str, Any]:
        return {
            "clip": clip_spec(self.model.config),
            "batch_size": self.model.config.batch_size,
            "device": self.model.runtime.device,
            "views": views.clips,
            "crops": views.crops,
        }

    def _scores(self, loader: ClipLoader, views: Views, progress: Progress | None) -> Scores:
        records = {clip.id: clip for clip in self.dataset.index.usable}
        return scores_of(self.model, loader, records, crops=views.crops, progress=progress)
