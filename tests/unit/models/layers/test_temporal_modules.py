"""TSM, TAM, pooling and non-local blocks: their formulas, where they stand, and what they can learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as torchvision_models

import models
from models.architectures.frame_model import FrameModel
from models.architectures.resnet2d import ImageBlock
from models.layers.temporal_modules import NonLocal, TemporalAggregation, TemporalPool, TemporalShift, shift

from ..oracles import random_clip, randomise, relative_gap

PARAMETERS = [
    ("tsn_resnet18", 11_381_712, 11_228_325),
    ("tsn_resnet50", 24_327_632, 23_714_981),
    ("tsn_resnet101", 43_319_760, 42_707_109),
    ("tsm_resnet18", 11_381_712, 11_228_325),
    ("tsm_resnet50", 24_327_632, 23_714_981),
    ("tsm_resnet101", 43_319_760, 42_707_109),
    ("tam_resnet18", 11_386_128, 11_232_741),
    ("tam_resnet50", 24_366_992, 23_754_341),
    ("tam_resnet101", 43_411_344, 42_798_693),
    ("tsn_inception_v1", 6_009_904, 5_703_429),
    ("tam_inception_v1", 6_027_328, 5_720_853),
]


@pytest.mark.parametrize(("name", "at_400", "at_101"), PARAMETERS)
def test_parameter_count(name: str, at_400: int, at_101: int) -> None:
    for classes, expected in ((400, at_400), (101, at_101)):
        with torch.device("meta"):
            model = models.create_model(name, num_classes=classes)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


def over_time(images: Tensor, kernel: Tensor, length: int) -> Tensor:
    """Return images (N * T, C, H, W) filtered over time by (C, taps), as a depthwise 3-D convolution."""
    clips = images.view(-1, length, *images.shape[1:]).transpose(1, 2)
    weight = kernel[:, None, :, None, None]
    out = F.conv3d(clips, weight, padding=(kernel.shape[1] // 2, 0, 0), groups=kernel.shape[0])
    return out.transpose(1, 2).reshape(images.shape)


def shift_kernel(channels: int, divisor: int) -> Tensor:
    """Return TSM's filters: of previous, current and next image."""
    kernel = torch.zeros(channels, 3, dtype=torch.float64)
    fold = channels // divisor
    kernel[:fold, 2] = kernel[fold : 2 * fold, 0] = kernel[2 * fold :, 1] = 1
    return kernel


def test_shift_by_hand() -> None:
    # Two clips of three images, eight channels; a value tells clip, image and channel.
    images = torch.tensor([[100 * n + 10 * t + c for c in range(8)] for n in (1, 2) for t in (1, 2, 3)])
    shifted = TemporalShift(8)(images[..., None, None].float(), 3)[..., 0, 0]
    assert shifted[:, 0].tolist() == [120, 130, 0, 220, 230, 0]
    assert shifted[:, 1].tolist() == [0, 111, 121, 0, 211, 221]
    assert torch.equal(shifted[:, 2:], images[:, 2:].float())


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("divisor", [3, 4, 8])
def test_shift_is_a_fixed_depthwise_convolution(length: int, divisor: int) -> None:
    images = random_clip(2 * length, 16, 3, 4)
    assert torch.equal(TemporalShift(divisor)(images, length), over_time(images, shift_kernel(16, divisor), length))


@pytest.mark.parametrize("frames", [3, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 6])
def test_aggregation_is_a_depthwise_convolution_and_a_relu(frames: int, length: int) -> None:
    module = TemporalAggregation(6, frames=frames, init="random").double()
    images = random_clip(2 * length, 6, 3, 4)
    kernel = torch.cat([layer.fc1.weight.view(6, 1) for layer in module.weights()], dim=1)
    ours, theirs = module(images, length), over_time(images, kernel, length).relu()
    assert relative_gap(ours, theirs) < 1e-12
    gradients = torch.autograd.grad(ours.square().sum(), list(module.parameters()))
    expected = torch.autograd.grad(theirs.square().sum(), list(module.parameters()))
    for gradient, other in zip(gradients, expected, strict=True):
        assert relative_gap(gradient, other) < 1e-12


def test_aggregation_by_maximum_takes_the_largest_weighted_image() -> None:
    module = TemporalAggregation(4, method="max", init="random").double()
    images = random_clip(2 * 3, 4, 2, 2)
    previous, current, following = (layer.fc1.weight.view(1, 1, 4, 1, 1) for layer in module.weights())
    clips = images.view(2, 3, 4, 2, 2)
    zero = torch.zeros_like(clips[:, :1])
    before, after = torch.cat((zero, clips[:, :-1]), 1), torch.cat((clips[:, 1:], zero), 1)
    expected = torch.stack((before * previous, clips * current, after * following)).amax(0).relu()
    assert relative_gap(module(images, 3), expected.flatten(0, 1)) < 1e-12


def test_full_aggregation_mixes_channels() -> None:
    module = TemporalAggregation(4, depthwise=False, init="random").double()
    images = random_clip(2 * 3, 4, 2, 2)
    weight = torch.stack([layer.fc1.weight[:, :, 0, 0] for layer in module.weights()], dim=2)[..., None, None]
    expected = F.conv3d(images.view(2, 3, 4, 2, 2).transpose(1, 2), weight, padding=(1, 0, 0)).relu()
    assert relative_gap(module(images, 3), expected.transpose(1, 2).flatten(0, 1)) < 1e-12


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("frames", [3, 5])
def test_aggregation_starts_as_the_image_itself(frames: int, depthwise: bool) -> None:
    module = TemporalAggregation(4, frames=frames, depthwise=depthwise)
    images = torch.randn(6, 4, 3, 3).relu()
    assert torch.equal(module(images, 3), images)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("method", ["max", "average"])
def test_pooling_by_hand(method: str, stride: int, length: int) -> None:
    module = TemporalPool(method, stride=stride)
    values = random_clip(1, length)[0]
    pooled = module(values[:, None, None, None], length).flatten()
    expected = []
    for centre in range(0, length, stride):
        around = [float(values[index]) for index in (centre - 1, centre, centre + 1) if 0 <= index < length]
        expected.append(max(around) if method == "max" else sum(around) / 3)
    assert pooled.tolist() == pytest.approx(expected, rel=1e-12)
    assert module.pooled_length(length) == len(expected)


def test_shift_further_than_the_clip_leaves_zeros() -> None:
    assert not shift(torch.ones(2, 3, 4), 3).any()
    assert not shift(torch.ones(2, 3, 4), -5).any()


def test_non_local_is_its_formula_and_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    module = NonLocal(6).double().eval()
    images = random_clip(4, 6, 4, 4)
    assert torch.equal(module(images, 2), images)
    randomise(module, seed=1)
    for layer in (module.theta, module.phi, module.g, module.out):
        nn.init.normal_(layer.weight, std=0.5)

    def rows(layer: nn.Conv2d, maps: Tensor) -> Tensor:
        """Return one row per place of one clip, image by image."""
        return torch.stack([pixel for image in layer(maps) for pixel in image.flatten(1).t()])

    expected = []
    for clip in images.split(2):
        small = F.max_pool2d(clip, 2)
        queries, keys, values = rows(module.theta, clip), rows(module.phi, small), rows(module.g, small)
        mixed = (queries @ keys.t()).softmax(1) @ values
        maps = mixed.view(2, 4, 4, 3).permute(0, 3, 1, 2)
        expected.append(clip + module.norm(module.out(maps)))
    assert relative_gap(module(images, 2), torch.cat(expected)) < 1e-12


class Before(nn.Module):
    """A layer of torchvision's, after a filter over time."""

    def __init__(self, layer: nn.Module, kernel: Tensor, length: int, *, relu: bool) -> None:
        super().__init__()
        self.layer, self.kernel, self.length, self.relu = layer, kernel, length, relu

    def forward(self, images: Tensor) -> Tensor:
        seen = over_time(images, self.kernel, self.length)
        out: Tensor = self.layer(seen.relu() if self.relu else seen)
        return out


def torchvision_blocks(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for stage in range(1, 5):
        for number, block in net.get_submodule(f"layer{stage}").named_children():
            yield f"layer{stage}.{number}", block


@pytest.mark.parametrize(
    ("name", "options", "every"),
    [("resnet18", {}, 1), ("resnet101", {}, 2), ("resnet18", {"shift_place": "block", "shift_every": 2}, 2)],
)
def test_tsm_is_torchvisions_net_with_filters_before_convolutions_or_blocks(
    name: str, options: dict[str, Any], every: int
) -> None:
    length, classes = 4, 5
    theirs = torchvision_models.get_model(name, weights=None, num_classes=classes)
    randomise(theirs, seed=0)
    ours = models.create_model(f"tsm_{name}", num_classes=classes, **options).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.double().eval()
    for key, block in torchvision_blocks(theirs):
        stage, _, number = key.rpartition(".")
        if int(number) % every:
            continue
        assert isinstance(block.conv1, nn.Conv2d)
        kernel = shift_kernel(block.conv1.in_channels, 8)
        if options:
            theirs.get_submodule(stage).add_module(number, Before(block, kernel, length, relu=False))
        else:
            block.conv1 = Before(block.conv1, kernel, length, relu=False)
    clip = random_clip(2, 3, length, 32, 32)
    with torch.no_grad():
        expected = theirs(clip.transpose(1, 2).flatten(0, 1)).view(2, length, classes).mean(1)
        assert relative_gap(ours(clip), expected) < 1e-10


@pytest.mark.parametrize("blend_frames", [3, 5])
def test_tam_is_torchvisions_net_with_learned_filters_before_first_convolutions(blend_frames: int) -> None:
    length, classes = 4, 5
    theirs = torchvision_models.resnet18(weights=None, num_classes=classes)
    randomise(theirs, seed=0)
    torch.manual_seed(0)
    options: dict[str, Any] = {"blend_frames": blend_frames, "blend_init": "random"}
    ours = models.create_model("tam_resnet18", num_classes=classes, dropout=0.0, **options).double()
    lacking = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert lacking.missing_keys
    assert all(".tam." in key for key in lacking.missing_keys)
    theirs.double()
    for key, block in torchvision_blocks(theirs):
        module = ours.get_submodule(f"{key}.tam")
        assert isinstance(module, TemporalAggregation)
        assert isinstance(block.conv1, nn.Conv2d)
        kernel = torch.stack([layer.fc1.weight.flatten() for layer in module.weights()], dim=1).detach()
        block.conv1 = Before(block.conv1, kernel, length, relu=True)
    clip = random_clip(2, 3, length, 32, 32)
    expected = theirs(clip.transpose(1, 2).flatten(0, 1)).view(2, length, classes).mean(1)
    logits = ours(clip)
    assert relative_gap(logits, expected) < 1e-10
    targets = torch.tensor([1, 3])
    F.cross_entropy(logits, targets).backward()
    F.cross_entropy(expected, targets).backward()
    gradients = {key.replace("conv1.layer", "conv1"): p.grad for key, p in theirs.named_parameters()}
    for key, parameter in ours.named_parameters():
        assert parameter.grad is not None
        if ".tam." not in key:
            gradient = gradients[key]
            assert gradient is not None
            assert relative_gap(parameter.grad, gradient) < 1e-10, key


def test_tsm_in_place_shifts_the_shortcut_too() -> None:
    branch, block = (
        models.create_model("tsm_resnet18", num_classes=3, width=8, shift_place=place) for place in ("branch", "block")
    )
    block.load_state_dict(branch.state_dict())
    first = block.get_submodule("layer1.0").double().eval()
    twin = branch.get_submodule("layer1.0").double().eval()
    images = random_clip(4, 8, 6, 6)
    shifted = over_time(images, shift_kernel(8, 8), 4)
    assert isinstance(twin, ImageBlock)
    assert relative_gap(first(images, 4), (twin.branch(shifted, 4) + shifted).relu()) < 1e-12
    assert relative_gap(twin(images, 4), (twin.branch(shifted, 4) + images).relu()) < 1e-12


@pytest.mark.parametrize("name", ["tam_resnet18", "tam_inception_v1"])
def test_tam_starts_as_the_image_network(name: str) -> None:
    image = models.create_model(name.replace("tam", "tsn"), num_classes=3, width=8).double().eval()
    tam = models.create_model(name, num_classes=3, width=8).double().eval()
    lacking = tam.load_state_dict(image.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    clip = random_clip(2, 3, 4, 32, 32)
    with torch.no_grad():
        assert relative_gap(tam(clip), image(clip)) < 1e-12


@pytest.mark.parametrize("name", ["tsn_resnet18", "tsm_resnet18", "tam_resnet18", "tsm_inception_v1"])
@pytest.mark.parametrize("frames", [1, 3, 8])
def test_temporal_stride_halves_the_images_three_times(name: str, frames: int) -> None:
    model = models.create_model(name, num_classes=3, width=8, temporal_stride=True, pooling="average", non_local=True)
    assert isinstance(model, FrameModel)
    features = model.frame_features(torch.randn(2, 3, frames, 32, 32))
    halved = -(-frames // 8)
    assert features.shape == (2, halved, model.num_features)


def moving(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Return clips (2 * count, 3, 6, 16, 16) of a bar on a random place that moves right (0), and reversed (1)."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(16, (count,), generator=generator)
    clips = torch.zeros(count, 3, 6, 16, 16)
    for clip in range(count):
        for frame in range(6):
            column = int(start[clip]) + 2 * frame
            clips[clip, :, frame, :, [column % 16, (column + 1) % 16]] = 1.0
    clips += 0.1 * torch.randn(clips.shape, generator=generator)
    return torch.cat((clips, clips.flip(2))), torch.arange(2).repeat_interleave(count)


def accuracy_after_training(name: str, steps: int, **options: Any) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create_model(name, num_classes=2, width=8, dropout=0.0, **options)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for step in range(steps):
            clip, targets = moving(step, 8)
            optimizer.zero_grad()
            F.cross_entropy(model(clip), targets).backward()
            optimizer.step()
        model.eval()
        clip, targets = moving(10_000, 64)
        with torch.no_grad():
            return float((model(clip).argmax(1) == targets).float().mean())


@pytest.mark.parametrize("name", ["tsn_resnet18", "tsn_inception_v1"])
def test_the_direction_of_motion_is_hidden_from_tsn(name: str) -> None:
    # A clip and its reverse have the same frames, hence the same logits: one of the two is always wrong.
    assert accuracy_after_training(name, 5) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tsm_resnet18", {}),
        ("tam_resnet18", {}),
        pytest.param("tam_resnet18", {"blend_frames": 5, "blend_method": "max"}, marks=pytest.mark.slow),
        pytest.param(
            "tam_resnet18",
            {"blend_frames": 5, "blend_method": "max", "blend_init": "random"},
            marks=pytest.mark.slow,
        ),
        pytest.param("tsm_inception_v1", {}, marks=pytest.mark.slow),
        pytest.param("tam_inception_v1", {}, marks=pytest.mark.slow),
        pytest.param("blvnet_tam_50", {}, marks=pytest.mark.slow),
    ],
)
def test_temporal_modules_learn_the_direction_of_motion(name: str, options: dict[str, Any]) -> None:
    assert accuracy_after_training(name, 60, **options) > 0.9
