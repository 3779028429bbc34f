"""Score final weights on the sealed test list: `hpo evaluate --final`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from data import ClipBatch, DatasetSpec, open_dataset
from hpo.errors import SetupError
from hpo.spec import TrainingConfig

from ..checkpoints.contents import load
from ..device.detection import Device
from ..device.gpu_probe import gpu_uuid
from ..errors import CheckpointError
from ..training.inputs import clip_spec
from ..training.memory_plan import MemoryPlan
from ..training.model import build_model
from ..training.precision import choose_precision
from ..training.reproducibility import Runtime, prepare
from ..training.scoring import score
from ..training.trainer import final_state

DEFAULT_CLIPS = 10
"""Clips per video, evenly spaced: the usual number of temporal views (SlowFast, ICCV 2019)."""


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


def evaluate_final(
    checkpoint: Path,
    dataset: DatasetSpec,
    *,
    cache_dir: Path,
    device: Device,
    reason: str,
    clips: int = DEFAULT_CLIPS,
    crops: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FinalScore:
    """Break the seal of the test list, for a `reason` that is recorded, and return a checkpoint's score on it.

    The softmax outputs of a video's views, `clips` evenly spaced clips in `crops` crops each, are averaged. Sets
    the thread count of this process.

    Args:
        progress: called with the number of videos scored so far and of all videos.

    Raises:
        CheckpointError: the checkpoint cannot be read, or was made for other classes.
        data.DatasetError, models.ModelError: the data set or the model cannot be used.
    """
    state = load(checkpoint)
    config = _config(state, checkpoint)
    runtime = _runtime(device)
    prepare(runtime)
    opened = open_dataset(dataset, cache_dir=cache_dir)
    if list(opened.class_names) != state["class_names"]:
        raise CheckpointError(
            f"{checkpoint} was trained for other classes ({len(state['class_names'])}) than {dataset.root} has "
            f"({opened.num_classes}); give the data set that it was trained on"
        )
    model = build_model(config, num_classes=opened.num_classes)
    try:
        model.load_state_dict(final_state(state)["model"])  # a paused trial that was ended has a resume point alone
    except Exception as error:  # what is in a file that nobody of us wrote can be of any kind
        raise CheckpointError(f"{checkpoint} does not have the weights of the model that it names") from error
    model.to(runtime.device)
    loader = opened.test_loader(
        reason=reason,
        clip=clip_spec(config),
        batch_size=config.batch_size,
        device=runtime.device,
        views=clips,
        crops=crops,
    )
    result = score(
        model,
        loader,
        device=runtime.device,
        precision=choose_precision(config, runtime),
        most_clips=_clips_at_once(state, config),
        each=None if progress is None else _counting(progress, loader.num_clips),
    )
    right = round(result.top1 * result.videos)
    wilson = binomtest(right, result.videos).proportion_ci(method="wilson")
    return FinalScore(
        top1=result.top1,
        top5=result.top5,
        interval=(float(wilson.low), float(wilson.high)),
        videos=result.videos,
        clips=clips,
        crops=crops,
        chance=1 / opened.num_classes,
        dataset_version=opened.version,
        same_dataset=opened.version == state["dataset_version"],
    )


def _config(state: Mapping[str, Any], checkpoint: Path) -> TrainingConfig:
    """Return the configuration in a checkpoint, whose other parts have the kinds that are needed.

    Raises:
        CheckpointError: something is missing or of another kind.
    """
    kinds = {"config": dict, "class_names": list, "dataset_version": str, "model": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(state.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{checkpoint} has no {' and no '.join(wrong)} as a checkpoint of ours has")
    try:
        return TrainingConfig.from_flat(state["config"])
    except ValueError as error:
        raise CheckpointError(f"{checkpoint} has a configuration that is not one of ours") from error


def _clips_at_once(state: Mapping[str, Any], config: TrainingConfig) -> int:
    """Return how many clips the training has seen to fit without gradients, up to its batch size."""
    plan = state.get("memory_plan")
    return config.batch_size if plan is None else min(config.batch_size, MemoryPlan.from_state(plan).evaluation_batch)


def _runtime(device: Device) -> Runtime:
    """Return how this process computes on the device."""
    place = torch.device("cpu") if device.kind == "cpu" else _gpu(device)
    return Runtime(device=place, threads=device.threads, bf16=device.bf16, deterministic=device.deterministic)


def _gpu(device: Device) -> torch.device:
    """Return the GPU by its number in this process, which may have used another GPU before.

    Raises:
        SetupError: this process cannot see it.
    """
    if not torch.cuda.is_initialized():
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if device.visible.startswith("MIG-"):  # CUDA shows a process one part of a GPU at most
            os.environ["CUDA_VISIBLE_DEVICES"] = device.visible
            return torch.device("cuda")
    for index in range(torch.cuda.device_count()):
        if gpu_uuid(index) == device.uuid:
            # Kernels of some libraries run on the current GPU, wherever their tensors are.
            torch.cuda.set_device(index)
            return torch.device("cuda", index)
    raise SetupError(f"this process does not see {device.label}; evaluate in a new process")


def _counting(progress: Callable[[int, int], None], total: int) -> Callable[[ClipBatch], None]:
    done = 0

    def each(batch: ClipBatch) -> None:
        nonlocal done
        done += len(batch.ids)
        progress(done, total)

    return each
