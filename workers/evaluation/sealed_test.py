"""Score final weights on the sealed test list, or on the validation list, which no seal protects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from data import Dataset, DatasetSpec, open_dataset
from data.clips.crops import CROPS
from data.index.records import ClipRecord
from hpo.errors import SetupError

from ..device.detection import Device, cpu_device
from ..errors import CheckpointError
from ..training.inputs import clip_spec
from .model import TrainedModel
from .sharding import Sharding
from .views import WHOLE, Progress, Scores, Share, scores_of

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
    sharding: Sharding | None = None
    """The devices that score instead of the one that has the model, if there are several."""

    @classmethod
    def prepare(
        cls, checkpoint: Path, dataset: DatasetSpec, *, cache_dir: Path, device: Device | Sequence[Device]
    ) -> Self:
        """Open checkpoint and data set. Sets the thread count of this process.

        Args:
            device: where it is scored; on each of several devices a process scores a part of the videos.

        Raises:
            CheckpointError: the checkpoint cannot be read, or was made for other classes.
            data.DatasetError, models.ModelError: the data set or the model cannot be used.
        """
        devices = (device,) if isinstance(device, Device) else tuple(device)
        model = _model_on(checkpoint, devices)
        opened = open_dataset(dataset, cache_dir=cache_dir)
        if opened.class_names != model.class_names:
            raise CheckpointError(
                f"{checkpoint} was trained for other classes ({len(model.class_names)}) than {dataset.root} has "
                f"({opened.num_classes}); give the data set that it was trained on"
            )
        several = Sharding(
            checkpoint=checkpoint,
            dataset=dataset,
            dataset_version=opened.version,
            cache_dir=cache_dir,
            devices=devices,
        )
        return cls(model=model, dataset=opened, sharding=several if len(devices) > 1 else None)

    @property
    def same_dataset(self) -> bool:
        """Whether the data set has not changed since the training."""
        return self.dataset.version == self.model.dataset_version

    def test(self, opening: Opening, views: Views, *, progress: Progress | None = None) -> Scores:
        """Break the seal of the test list, for a reason that is recorded, and return the scores of its videos."""
        self.dataset.validation_loader(**self._seen(views))  # refuses clips before the seal is broken
        about = {"id": str(uuid4()), **opening.about}
        clips = self.dataset.unseal_test(reason=opening.reason, about=about)
        return self._scores(clips, views, about["id"], progress)

    def validation(self, views: Views, *, progress: Progress | None = None) -> Scores:
        """Return the scores of the validation videos.

        Raises:
            CheckpointError: the model was trained on them.
        """
        self._require_held_out()
        return self._scores(self.dataset.validation_clips, views, None, progress)

    def share(self, share: Share, views: Views, *, opening: str | None, progress: Progress | None) -> Scores | None:
        """Return the scores of a part of the validation list, or of the test list that an opening has opened."""
        seen = self._seen(views)
        if opening is None:
            self._require_held_out()
            loader = self.dataset.validation_loader(**seen)
        else:
            loader = self.dataset.opened_test_loader(opening=opening, **seen)
        records = {clip.id: clip for clip in self.dataset.index.usable}
        return scores_of(self.model, loader, records, crops=views.crops, share=share, progress=progress)

    def _require_held_out(self) -> None:
        if self.model.refit:
            raise CheckpointError(
                "the checkpoint is a refit, which was trained on the validation videos as well: its scores on them say "
                "nothing; score it on the test list"
            )

    def _scores(
        self, clips: Sequence[ClipRecord], views: Views, opening: str | None, progress: Progress | None
    ) -> Scores:
        if self.sharding is not None:
            ids = [clip.id for clip in clips]
            return self.sharding.scores(
                ids=ids, clips=views.clips, crops=views.crops, opening=opening, progress=progress
            )
        found = self.share(WHOLE, views, opening=opening, progress=progress)
        assert found is not None  # noqa: S101 - there are videos, or the data set could not be opened
        return found

    def _seen(self, views: Views) -> dict[str, Any]:
        return {
            "clip": clip_spec(self.model.config),
            "batch_size": self.model.config.batch_size,
            "device": self.model.runtime.device,
            "views": views.clips,
            "crops": views.crops,
        }


def _model_on(checkpoint: Path, devices: Sequence[Device]) -> TrainedModel:
    """Return the model; where processes of its own use the devices, in main memory."""
    device = devices[0] if len(devices) == 1 else cpu_device(threads=devices[0].threads)
    return TrainedModel.open(checkpoint, device)
