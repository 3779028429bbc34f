"""Activation checkpointing keeps less and computes the same: gradients, running statistics and random numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from models import VideoModel
from workers.training.checkpointing import checkpointed_parts, set_checkpointing

from ...models.tiny import COSTLY, IMAGE_BASED, OF_FIXED_SIZE, clips, tiny
from .limited import LimitedMemory

_IMAGE_MODELS = ["resnet18", "tsm_r18", "stmulnet_r18", "inception_v1", "vgg16"]
_SLOW = {*COSTLY, *IMAGE_BASED, *OF_FIXED_SIZE}
_WITHOUT_PARTS = ("stmulnet_r18", "c3d")
"""One calls no block as a module, the other has no blocks."""


def _names() -> list[Any]:
    quick = [name for name in models.list_models() if name not in _SLOW]
    return [*quick, *(name for name in _IMAGE_MODELS if name in models.list_models())]


def _trained(model: VideoModel, inputs: Any, *, checkpointing: bool) -> tuple[dict[str, Tensor], int]:
    """Return gradients, buffers and the next random number after one pass, and the bytes that the graph kept."""
    set_checkpointing(model, checkpointing)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(7)
    memory = LimitedMemory()
    with memory.of(model):
        loss, _ = model.training_loss(inputs, torch.tensor([0, 1]), nn.CrossEntropyLoss())
        loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    found |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    found["random"] = torch.rand(1)
    return found, memory.peak_bytes()


@pytest.mark.parametrize("name", _names())
def test_gradients_and_statistics_are_the_same_to_the_last_bit_and_less_is_kept(name: str) -> None:
    torch.manual_seed(0)
    model = tiny(name, dropout=0.4)
    inputs: Any = clips()
    if len(model.info.inputs) == 2:
        inputs = (inputs, clips(channels=int(model.settings.hparams["flow_channels"])))
    start = {key: value.clone() for key, value in model.state_dict().items()}
    expected, whole = _trained(model, inputs, checkpointing=False)
    model.load_state_dict(start)
    found, kept = _trained(model, inputs, checkpointing=True)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    if name not in _WITHOUT_PARTS:
        assert kept < 0.7 * whole
    assert list(model.state_dict()) == list(start)


def test_it_can_be_turned_off_again() -> None:
    model = tiny("r3d_18")
    _, whole = _trained(model, clips(), checkpointing=False)
    parts = checkpointed_parts(model)
    set_checkpointing(model, True)
    set_checkpointing(model, True)  # twice is not double
    assert all("forward" in vars(part) for part in parts)
    _, again = _trained(model, clips(), checkpointing=False)
    assert again == whole
    assert not any("forward" in vars(part) for part in parts)


def test_a_part_has_about_the_square_root_of_the_layers_and_a_chain_is_cut_into_such() -> None:
    for part in checkpointed_parts(tiny("r3d_18")):
        layers = sum(isinstance(module, nn.Conv3d | nn.Linear) for module in part.modules())
        assert 2 <= layers <= 5  # of 21
    chain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(9)))
    net = nn.Sequential(chain)
    memory = LimitedMemory()
    set_checkpointing(net, True)
    seen: list[int] = []
    for number, link in enumerate(chain):
        link.register_forward_hook(lambda *_, number=number: seen.append(number))
    with memory.of(net):
        net(torch.ones(1, 4)).sum().backward()
    assert seen[:9] == list(range(9))
    assert seen[9:] == [6, 7, 3, 4, 0, 1]  # from the last three back; what follows a kept input is not needed again
