"""Kernels of images become kernels of clips; what cannot is said in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer, resnet18, resnet50, resnet101

import models

from ..oracles import random_clip, randomise, relative_gap
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


@pytest.mark.parametrize("name", ["r2plus1d_18", "x3d_s", "mvit_v2_s"])
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


def test_slow_path_sees_the_image_whatever_the_fast_path_does() -> None:
    image_net = resnet50(num_classes=3)
    randomise(image_net, seed=4)
    image_net.double().eval()
    video_net = models.create_model("slowfast_r50_4x16", num_classes=3, alpha=2)
    randomise(video_net, seed=5)
    video_net.double().eval()
    report = models.load_inflated(video_net, image_net.state_dict())
    assert all(key.startswith(("fast.", "laterals.", "head.")) for key in report.reset)
    # Zeros padded in time reach 9 of the slow path's frames from either end.
    gap = gap_in_the_middle(video_net, "slow.stages.3", image_net, frames=40)
    assert gap < 1e-10


@pytest.mark.parametrize("non_local", ["none", "softmax"])
def test_image_weights_load_from_a_file_too(non_local: str, tmp_path: Path) -> None:
    image_net = resnet18(num_classes=3)
    randomise(image_net, seed=4)
    torch.save(image_net.state_dict(), tmp_path / "resnet18.pth")
    loaded, inflated = (models.create_model("slowfast_r18", num_classes=5, non_local=non_local) for _ in range(2))
    report = models.load_weights(loaded, tmp_path / "resnet18.pth")
    models.load_inflated(inflated, image_net.state_dict())
    assert report.reset == ("head.bias", "head.weight")
    assert {"slow.stages.1.0.branch.conv_a.weight", "slow.stages.0.0.branch.conv_a.weight"} <= set(report.adapted)
    of_lateral = "slow.stages.0.0.shortcut."
    assert all(key.startswith(("fast.", "laterals.", of_lateral)) or ".nl." in key for key in report.kept)
    state = inflated.state_dict()
    for key in report.loaded:
        torch.testing.assert_close(loaded.state_dict()[key], state[key])


def test_separable_network_of_pytorchvideo_sees_the_image_through_open_temporal_convolutions() -> None:
    image_net = resnet50(num_classes=3)
    # As this network: no pool after the stem, and the first stage halves the image.
    image_net.maxpool = nn.Identity()
    image_net.layer1[0].conv2.stride = image_net.layer1[0].downsample[0].stride = (2, 2)
    randomise(image_net, seed=4)
    image_net.double().eval()
    video_net = models.create_model("r2plus1d_r50", num_classes=3)
    report = models.load_inflated(video_net, image_net.state_dict())
    own = [key for key in report.reset if not key.startswith("head.")]
    assert own
    assert all(".conv_b.conv_t." in key or ".conv_b.norm." in key for key in own)
    for key, module in video_net.named_modules():
        # They follow a ReLU, and a ReLU follows them: one that hands its input on changes nothing.
        if key.endswith("conv_b.conv_t") and isinstance(module, nn.Conv3d):
            nn.init.dirac_(module.weight)
        if key.endswith("conv_b.norm") and isinstance(module, nn.BatchNorm3d):
            module.weight.data.fill_((1 + module.eps) ** 0.5)
    assert gap_in_the_middle(video_net.double().eval(), "path.stages.3", image_net, frames=4) < 1e-6


def test_csn_keeps_its_depthwise_convolutions() -> None:
    image_net = resnet101(num_classes=3)
    video_net = models.create_model("csn_r101", num_classes=3)
    report = models.load_inflated(video_net, image_net.state_dict())
    own = {re.sub(r".*branch\.(\w+)\..*", r"\1", key) for key in report.reset if not key.startswith("head.")}
    assert own == {"conv_b", "norm_b"}
    stem = video_net.get_parameter("path.stem.conv.weight")
    torch.testing.assert_close(stem.sum(2), image_net.conv1.weight)
    last = video_net.get_parameter("path.stages.3.2.branch.conv_c.weight")
    torch.testing.assert_close(last[:, :, 0], image_net.layer4[2].conv3.weight)


@pytest.mark.parametrize("name", ["csn_r101", "csn_r152_ip"])
def test_a_file_of_images_loads_into_csn_and_says_what_was_not_needed(name: str, tmp_path: Path) -> None:
    image_net = models.create_model("resnet101" if "101" in name else "resnet152", num_classes=3, width=8)
    torch.save(image_net.state_dict(), tmp_path / "resnet.pth")
    video_net = models.create_model(name, num_classes=5, width=8)
    report = models.load_weights(video_net, tmp_path / "resnet.pth")
    assert report.reset == ("head.bias", "head.weight")
    assert all(".conv_b." in key or ".norm_b." in key for key in report.kept)
    assert report.kept
    assert {"layer1.0.conv2.weight", "fc.weight"} <= set(report.dropped)
    assert ("layer1.0.bn2.weight" in report.dropped) == (name == "csn_r101")


def gap_in_the_middle(video_net: models.VideoModel, last: str, image_net: nn.Module, *, frames: int) -> float:
    """Return the gap between the image's last maps and those of the middle frame of a clip that stands still."""
    image = random_clip(1, 3, 1, 32, 32)
    maps: dict[str, torch.Tensor] = {}
    image_net.get_submodule("layer4").register_forward_hook(lambda *call: maps.update(image=call[2]))
    video_net.get_submodule(last).register_forward_hook(lambda *call: maps.update(video=call[2]))
    with torch.no_grad():
        image_net(image[:, :, 0])
        video_net(image.expand(-1, -1, frames, -1, -1))
    return relative_gap(maps["video"][:, :, maps["video"].shape[2] // 2], maps["image"])


def swin_of_images() -> SwinTransformer:
    net = SwinTransformer([4, 4], 32, [2, 2, 6, 2], [1, 2, 4, 8], [7, 7], stochastic_depth_prob=0.0, num_classes=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return net


def test_inflated_swin_sees_the_image_in_a_clip_that_stands_still() -> None:
    image_net = swin_of_images().double().eval()
    video_net = models.create_model("swin3d_t", num_classes=3, width=32).double().eval()
    report = models.load_inflated(video_net, image_net.state_dict())
    assert {key for key in report.reset if "relative_position_index" not in key} == {"head.bias", "head.weight"}
    # Whole windows of 7 x 7, shifted: for fewer positions the network of images pads, and that of clips takes less.
    image = random_clip(1, 3, 1, 224, 224)
    with torch.no_grad():
        expected = image_net.norm(image_net.features(image[:, :, 0])).mean((1, 2))
        found = video_net.forward_features(image.expand(-1, -1, 4, -1, -1))
    assert relative_gap(found, expected) < 1e-10


@pytest.mark.parametrize("program", ["torchvision", "authors", "timm"])
def test_files_of_swin_of_images_load(program: str, tmp_path: Path) -> None:
    image_net = swin_of_images()
    state = image_net.state_dict()
    if program != "torchvision":
        state = {swin_name(key, program): tensor for key, tensor in state.items()}
        assert "layers.3.blocks.1.mlp.fc2.bias" in state
        assert ("layers.1.downsample.norm.weight" if program == "timm" else "layers.0.downsample.norm.weight") in state
        state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    torch.save({"model": state}, tmp_path / "swin.pth")
    loaded, inflated = (models.create_model("swin3d_t", num_classes=5, width=32) for _ in range(2))
    report = models.load_weights(loaded, tmp_path / "swin.pth")
    models.load_inflated(inflated, image_net.state_dict())
    assert report.reset == ("head.bias", "head.weight")
    assert all(key.endswith("relative_position_index") for key in report.kept)
    for key in report.loaded:
        torch.testing.assert_close(loaded.state_dict()[key], inflated.state_dict()[key])


def swin_name(ours: str, program: str) -> str:
    """Return the name in another program of a tensor of torchvision's Swin of images."""
    ours = ours.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
    ours = ours.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    if program == "timm":
        ours = ours.replace("head.", "head.fc.")
    match = re.match(r"features\.(\d+)\.(.*)", ours)
    if match is None:
        return ours
    number, rest = int(match[1]), match[2]
    if number % 2:
        return f"layers.{number // 2}.blocks.{rest}"
    return f"layers.{number // 2 - (program == 'authors')}.downsample.{rest}"


def test_an_image_network_of_big_and_little_branches_fills_all_but_the_aggregation(tmp_path: Path) -> None:
    source = models.create_model("blvnet_tam_50", num_classes=7, width=8)
    randomise(source, seed=3)
    image_net = {name: tensor for name, tensor in source.state_dict().items() if "tam." not in name}
    assert {"conv1.weight", "b_conv0.weight", "l_conv0.weight", "bl_init.weight", "fc.weight"} <= image_net.keys()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in image_net.items()}}, tmp_path / "bl.pth")
    target = models.create_model("blvnet_tam_50", num_classes=5, width=8)
    report = models.load_weights(target, tmp_path / "bl.pth")
    assert report.reset == ("fc.bias", "fc.weight")
    assert report.kept
    assert all("tam." in key for key in report.kept)
    for name in report.loaded:
        assert torch.equal(target.state_dict()[name], image_net[name]), name
