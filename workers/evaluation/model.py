"""The model of a checkpoint, ready to score on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

from hpo.spec import TrainingConfig

from ..checkpoints.contents import load
from ..device.detection import Device
from ..errors import CheckpointError
from ..training.memory_plan import MemoryPlan
from ..training.model import build_model
from ..training.precision import Precision, choose_precision
from ..training.reproducibility import Runtime, prepare
from ..training.trainer import final_state
from .runtime import runtime_on

_KINDS = {"config": dict, "class_names": list, "dataset_version": str, "model": dict}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model with the weights of a checkpoint, and what scoring it needs to know."""

    module: nn.Module
    """On the device, in evaluation mode."""
    config: TrainingConfig
    class_names: tuple[str, ...]
    """Position is the label."""
    dataset_version: str
    """Of the data set that it was trained on."""
    most_clips: int
    """How many clips the training has seen to fit without gradients, up to its batch size."""
    precision: Precision
    runtime: Runtime
    refit: bool = False
    """Whether it was trained on the validation videos as well."""

    @classmethod
    def open(cls, checkpoint: Path, device: Device) -> Self:
        """Build the model of a checkpoint on a device. Sets the thread count of this process.

        Raises:
            CheckpointError: it cannot be read, is none of ours, or has the weights of another model.
            models.ModelError: the model cannot be built here.
        """
        state = load(checkpoint)
        config = _config(state, checkpoint)
        runtime = runtime_on(device)
        prepare(runtime)
        module = build_model(config, num_classes=len(state["class_names"]))
        try:
            module.load_state_dict(final_state(state)["model"])  # a paused trial that was ended has no other file
        except Exception as error:  # what is in a file that nobody of us wrote can be of any kind
            raise CheckpointError(f"{checkpoint} does not have the weights of the model that it names") from error
        return cls(
            module=module.to(runtime.device).eval(),
            config=config,
            class_names=tuple(map(str, state["class_names"])),
            dataset_version=state["dataset_version"],
            most_clips=_clips_at_once(state, config),
            precision=choose_precision(config, runtime),
            runtime=runtime,
            refit=state.get("refit") is True,
        )


def _config(state: Mapping[str, Any], checkpoint: Path) -> TrainingConfig:
    """Return the configuration in a checkpoint, whose other parts have the kinds that are needed."""
    wrong = [name for name, kind in _KINDS.items() if not isinstance(state.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{checkpoint} has no {' and no '.join(wrong)} as a checkpoint of ours has")
    if not state["class_names"]:
        raise CheckpointError(f"{checkpoint} names no classes")
    try:
        return TrainingConfig.from_flat(state["config"])
    except ValueError as error:
        raise CheckpointError(f"{checkpoint} has a configuration that is not one of ours") from error


def _clips_at_once(state: Mapping[str, Any], config: TrainingConfig) -> int:
    plan = state.get("memory_plan")
    return config.batch_size if plan is None else min(config.batch_size, MemoryPlan.from_state(plan).evaluation_batch)
