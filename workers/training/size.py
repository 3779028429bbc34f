"""What an update of a configuration takes, counted on tensors without contents: nothing is computed or allocated.

It is told before anything runs. How a batch is computed on a device is decided there, by trying (`memory_plan`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hpo.spec import TrainingConfig

from .inputs import clip_spec
from .model import build_model

_CLIPS: Final = 2
"""Two clips are counted, since batch norm refuses to train on a single value."""
_STATE: Final = {"sgd": 1, "adamw": 2}
"""Values that an optimizer keeps for each weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSize:
    """What one update of a configuration takes."""

    bytes: int
    """Device memory in float32: weights, gradients, the optimizer's state, and what the forward pass keeps of the whole
    batch for the backward pass. bf16 autocast and fused attention keep less; what a layer needs while it computes, and
    what cuDNN and CUDA take, comes on top."""
    flops_of_clip: float
    """Floating-point operations of one clip, forward and backward, a multiplication and an addition counted as two."""


def update_size(config: TrainingConfig, *, num_classes: int) -> UpdateSize:
    """Count what an update of a configuration takes.

    Raises:
        models.ModelError: the model cannot be built so.
    """
    kept, operations = _Kept(), FlopCounterMode(display=False)
    with torch.device("meta"):
        model = build_model(config, num_classes=num_classes).train()
        given = _clips(config)
        with operations, saved_tensors_hooks(kept.keep, _same):
            model(given[0] if len(given) == 1 else tuple(given)).sum().backward()
    weights = list(model.parameters())
    of_clip = kept.bytes_beside(weights) / _CLIPS  # the clips themselves are kept by the first layer
    of_weights = sum(weight.nbytes for weight in weights) * (2 + _STATE[config.optimizer])
    return UpdateSize(
        bytes=round(of_weights + of_clip * config.batch_size),
        flops_of_clip=operations.get_total_flops() / _CLIPS,
    )


class _Kept:
    """The memory that a forward pass keeps for the backward pass; a part that several operations keep counts once."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note a tensor that an operation keeps."""
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage  # held, so that no other gets its number
        return tensor

    def bytes_beside(self, others: list[torch.nn.Parameter]) -> int:
        """Return the size of what was kept, without `others`."""
        known = {other.untyped_storage()._cdata for other in others}
        return sum(storage.nbytes() for number, storage in self._storages.items() if number not in known)


def _clips(config: TrainingConfig) -> list[torch.Tensor]:
    clip = clip_spec(config)
    channels = {"rgb": 3, "flow": 2 * clip.flow_pairs}
    return [torch.empty(_CLIPS, channels[name], clip.frames, clip.size, clip.size) for name in clip.inputs]


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
