"""Kernels of images become kernels of clips; what cannot is said in one sentence."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import resnet18

import models

from ..tiny import tiny


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_a_clip_that_stands_still_gets_the_images_answer(frames: int) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=generator)
    image = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=generator)
    clip = image.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    inflated = models.inflate_kernel(kernel, frames)
    assert inflated.shape == (4, 3, frames, 3, 3)
    torch.testing.assert_close(F.conv3d(clip, inflated)[:, :, 0], F.conv2d(image, kernel))
    repeated = models.inflate_kernel(kernel, frames, inflate_scale=1.0)
    torch.testing.assert_close(F.conv3d(clip, repeated)[:, :, 0], frames * F.conv2d(image, kernel))


def test_scale_applies_to_repeated_kernels_only() -> None:
    image_net = resnet18(num_classes=2)
    divided, repeated = (models.create_model("mc3_18", num_classes=2) for _ in range(2))
    models.load_inflated(divided, image_net.state_dict())
    models.load_inflated(repeated, image_net.state_dict(), inflate_scale=1.0)
    ours, theirs = divided.state_dict(), repeated.state_dict()
    torch.testing.assert_close(theirs["layer1.0.conv1.0.weight"], 3 * ours["layer1.0.conv1.0.weight"])
    # MC3's later kernels see one frame, and norms are copied as they are.
    for key in ("layer2.0.conv1.0.weight", "layer2.0.downsample.0.weight", "layer1.0.conv1.1.running_var"):
        assert torch.equal(theirs[key], ours[key])


@pytest.mark.parametrize("name", ["slowfast_r18", "r2plus1d_18", "x3d_s", "swin3d_t"])
def test_a_model_without_an_image_network_says_so(name: str) -> None:
    with pytest.raises(models.WeightsError, match=f"{name} is not made from an image network"):
        models.load_inflated(tiny(name), {})


def test_misfits_are_named_and_nothing_is_loaded() -> None:
    model = models.create_model("r3d_18", num_classes=2)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = resnet18(num_classes=2).state_dict()
    conv = state.pop("conv1.weight")
    with pytest.raises(models.WeightsError, match=re.escape("the image weights for r3d_18 lack conv1.weight")):
        models.load_inflated(model, state)
    state["conv1.weight"] = conv[:, :1]
    with pytest.raises(models.WeightsError, match=r"conv1\.weight of the image weights is \(64, 1, 7, 7\)"):
        models.load_inflated(model, state)
    with pytest.raises(models.WeightsError, match=r"lack .* and 115 more"):
        models.load_inflated(model, {})
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)


def test_kernels_have_four_axes_and_a_frame() -> None:
    with pytest.raises(models.WeightsError, match=r"\(O, I, H, W\), not the shape \(3, 3, 3\)"):
        models.inflate_kernel(torch.zeros(3, 3, 3), 3)
    with pytest.raises(models.WeightsError, match="at least 1 frame, not 0"):
        models.inflate_kernel(torch.zeros(3, 3, 3, 3), 0)
