"""C3D is the network of its paper, written again here with PyTorch's functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import models

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap


def reference(clip: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Return the logits of a clip of 16 frames and 112 pixels."""

    def conv(x: Tensor, name: str) -> Tensor:
        return F.relu(F.conv3d(x, state[f"conv{name}.weight"], state[f"conv{name}.bias"], padding=1))

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = F.max_pool3d(conv(clip, "1a"), (1, 2, 2), (1, 2, 2))
    x = F.max_pool3d(conv(x, "2a"), 2, 2)
    x = F.max_pool3d(conv(conv(x, "3a"), "3b"), 2, 2)
    x = F.max_pool3d(conv(conv(x, "4a"), "4b"), 2, 2)
    x = F.max_pool3d(conv(conv(x, "5a"), "5b"), 2, 2, padding=(0, 1, 1))
    assert x.shape[2:] == (1, 4, 4)
    x = F.relu(linear(x.flatten(1), "fc6"))
    return linear(F.relu(linear(x, "fc7")), "fc8")


def test_c3d_is_the_network_of_its_paper() -> None:
    model = models.create_model("c3d", num_classes=5, width=4, hidden_width=16, dropout=0.0)
    randomise(model, seed=1)
    model.double()
    clip = random_clip(1, 3, 16, 112, 112)
    expected = reference(clip, dict(model.state_dict()))
    assert relative_gap(model(clip), expected) < TOLERANCE


def test_dropout_acts_after_both_hidden_layers() -> None:
    model = models.create_model("c3d", num_classes=5, width=4, hidden_width=64, dropout=0.75)
    clip = random_clip(1, 3, 8, 16, 16).float()
    seen: list[Tensor] = []
    for name in ("fc7", "fc8"):
        model.get_submodule(name).register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(clip)
        for given in seen:
            assert (given == 0).float().mean() > 0.7
        seen.clear()
        model.eval()(clip)
    assert (seen[0] == 0).float().mean() < 0.7
