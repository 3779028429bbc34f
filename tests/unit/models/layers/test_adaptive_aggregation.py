"""The temporal adaptive module, written again here as its paper has it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from models.layers.adaptive_aggregation import AdaptiveAggregation

from ..oracles import TOLERANCE, random_clip, relative_gap


def spread(module: nn.Module) -> None:
    """Move all weights and statistics away from their start."""
    generator = torch.Generator().manual_seed(3)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
            if tensor.ndim > 1:
                tensor.sub_(1.0)


def reference(images: Tensor, length: int, module: AdaptiveAggregation) -> Tensor:
    """Return the result for images (N * length, C, H, W): a grouped convolution, one group per clip and channel."""
    count, channels, height, width = images.shape[0] // length, *images.shape[1:]
    clips = images.view(count, length, channels, height, width).permute(0, 2, 1, 3, 4)
    averages = clips.mean((3, 4))
    kernel = module.G(averages.reshape(count * channels, length)).view(count * channels, 1, 3, 1)
    weighted = clips * module.L(averages).view(count, channels, length, 1, 1)
    flat = weighted.reshape(1, count * channels, length, height * width)
    mixed = F.conv2d(flat, kernel, padding=(1, 0), groups=count * channels)
    return mixed.view(count, channels, length, height, width).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("training", [False, True])
def test_the_module_is_a_convolution_of_each_channel_with_its_own_kernel(training: bool) -> None:
    module = AdaptiveAggregation(8, 5).double().train(training)
    spread(module)
    images = random_clip(10, 8, 3, 4)
    expected = reference(images, 5, module)
    assert relative_gap(module(images, 5), expected) < TOLERANCE


def test_kernels_start_as_the_mean_of_three_images() -> None:
    module = AdaptiveAggregation(4, 6).eval()
    kernel = module.G(torch.randn(3, 6))
    torch.testing.assert_close(kernel, torch.full((3, 3), 1 / 3), atol=1e-3, rtol=0)


def test_clips_of_other_lengths_are_taken() -> None:
    module = AdaptiveAggregation(4, 8).double().eval()
    spread(module)
    still = random_clip(1, 4, 2, 2).expand(16, -1, -1, -1)
    # What stands still has the same averages at any length, so inside the clip nothing depends on it.
    assert relative_gap(module(still[:16], 16)[8], module(still[:8], 8)[4]) < TOLERANCE
    assert module(still[:1], 1).shape == (1, 4, 2, 2)


def test_it_stands_after_the_first_convolution_of_every_block() -> None:
    model = models.create_model("tanet_resnet50", num_classes=3, width=8).eval()
    modules = {name: part for name, part in model.named_modules() if isinstance(part, AdaptiveAggregation)}
    assert len(modules) == 16
    called: list[str] = []
    for name in ("conv1", "bn1", "tam", "conv2"):
        model.get_submodule(f"layer2.0.{name}").register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model(torch.zeros(1, 3, 8, 32, 32))
    assert called == ["conv1", "bn1", "tam", "conv2"]
    # MMAction2's table of models: 25.59 M for 400 classes.
    assert models.model_info("tanet_resnet50").parameters == 25_590_320
