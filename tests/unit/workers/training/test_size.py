"""What an update takes, counted without contents, beside the same on real tensors and closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from hpo.spec import TrainingConfig
from models import model_info
from workers.training.model import build_model
from workers.training.size import update_size

SMALL: dict[str, Any] = {"clip.frames": 8, "clip.size": 32, "model.width": 8, "batch_size": 4}


def config(**settings: Any) -> TrainingConfig:
    return TrainingConfig.from_flat({**SMALL, **settings})


@pytest.mark.parametrize("name", ["r2plus1d_18", "slowfast_r18"])
def test_what_is_kept_for_the_backward_pass_is_that_of_real_tensors(name: str) -> None:
    found = config(model=name)
    model = build_model(found, num_classes=7).train()
    clips = torch.rand(4, 3, 8, 32, 32)
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(clips)
    weights = {weight.untyped_storage().data_ptr(): weight for weight in model.parameters()}
    activations = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    # Weights, gradients and the momentum of SGD; the first convolution keeps the clips themselves.
    expected = 3 * sum(weight.nbytes for weight in weights.values()) + activations
    assert update_size(found, num_classes=7).bytes == pytest.approx(expected, rel=0.02)


def test_adamw_keeps_one_value_more_for_each_weight_and_a_clip_takes_the_same_in_every_batch() -> None:
    sgd, adamw = (update_size(config(model="r2plus1d_18", optimizer=name), num_classes=7) for name in ("sgd", "adamw"))
    weights = sum(weight.nbytes for weight in build_model(config(model="r2plus1d_18"), num_classes=7).parameters())
    assert adamw.bytes - sgd.bytes == weights
    eight, twelve = (update_size(config(model="r2plus1d_18", batch_size=size), num_classes=7) for size in (8, 12))
    assert twelve.bytes - eight.bytes == pytest.approx(eight.bytes - sgd.bytes, abs=2)
    assert eight.flops_of_clip == sgd.flops_of_clip


def test_forward_and_backward_take_three_times_what_the_card_says() -> None:
    info = model_info("r2plus1d_18")
    clip = {"clip.frames": info.clip.frames, "clip.size": info.clip.size}
    found = update_size(TrainingConfig.from_flat({"model": "r2plus1d_18", **clip}), num_classes=400)
    assert info.gflops is not None
    # The first layer has no gradient of its input; the card counts a multiplication and an addition as one.
    assert found.flops_of_clip == pytest.approx(3 * 2 * info.gflops * 1e9, rel=0.1)
