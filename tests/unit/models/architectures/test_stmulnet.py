"""The multiplier network: identities of its gates and filters, and torchvision's streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as torchvision_models

import models
from models.architectures.resnet2d import ImageBlock
from models.architectures.stmulnet import StMulNet

from ..oracles import random_clip, randomise, relative_gap

SEED_001: dict[str, Any] = {
    "gate_block": 2,
    "gate_preact": False,
    "temporal_norm": True,
    "pool_order": "space_first",
    "head_relu": True,
    "spatial_loss_weight": 0.75,
}


def make(name: str = "stmulnet_r34", *, seed: int = 0, **options: Any) -> StMulNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.create_model(
            name, **{"num_classes": 5, "width": 8, "dropout": 0.0, "flow_channels": 4, **options}
        )
    assert isinstance(model, StMulNet)
    randomise(model, seed)
    return model.double().eval()


def pair(frames: int = 3, size: int = 32, flow: int = 4) -> tuple[Tensor, Tensor]:
    return random_clip(2, 3, frames, size, size), random_clip(2, flow, frames, size, size, seed=1)


# Two torchvision networks without the classifiers' difference, 20 flow channels, temporal convolutions with biases.
# Per stream of 50 layers: 64 of the stem's bias and 3 C^2 + C for C = 64, 128, 256, 512.
TEMPORAL_50 = sum(3 * c * c + c for c in (64, 128, 256, 512))


@pytest.mark.parametrize(("classes", "two_nets"), [(400, 24_327_632 + 24_380_944), (101, 23_714_981 + 23_768_293)])
def test_parameter_count(classes: int, two_nets: int) -> None:
    with torch.device("meta"):
        official = models.create_model("stmulnet_r50", num_classes=classes)
        seed = models.create_model("stmulnet_r50", num_classes=classes, **SEED_001)
    assert sum(p.numel() for p in official.parameters()) == two_nets + 2 * (64 + TEMPORAL_50)
    # A batch norm has two numbers per channel where a bias has one.
    assert sum(p.numel() for p in seed.parameters()) == two_nets + 2 * (64 + TEMPORAL_50 + 960)


def test_without_a_bias_in_the_stem_a_stream_is_the_published_resnet_and_temporal_convolutions() -> None:
    published = torchvision_models.ResNet50_Weights.IMAGENET1K_V1.meta["num_params"]
    for bias, stem in ((False, 0), (True, 64)):
        with torch.device("meta"):
            model = models.create_model("stmulnet_r50", num_classes=1000, flow_channels=3, stem_bias=bias)
        assert sum(p.numel() for p in model.parameters()) == 2 * (published + TEMPORAL_50 + stem)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_streams_have_torchvisions_names(depth: int) -> None:
    with torch.device("meta"):
        theirs = torchvision_models.get_model(f"resnet{depth}", weights=None, num_classes=7)
        ours = models.create_model(f"stmulnet_r{depth}", num_classes=7)
    for stream in ("spatial", "temporal"):
        names = {name for name in ours.get_submodule(stream).state_dict() if ".temporal_conv." not in name}
        assert names - {"conv1.bias"} == set(theirs.state_dict())


@pytest.mark.parametrize("order", ["time_first", "space_first"])
def test_with_identity_filters_and_no_gate_the_streams_are_torchvisions_nets(order: str) -> None:
    model = (
        models.create_model("stmulnet_r50", num_classes=5, gate="none", pool_order=order, dropout=0.0).double().eval()
    )
    nets = {
        "spatial": torchvision_models.resnet50(num_classes=5),
        "temporal": torchvision_models.resnet50(num_classes=5),
    }
    nets["temporal"].conv1 = nn.Conv2d(20, 64, 7, 2, 3, bias=False)
    rgb, flow = pair(flow=20, size=64)
    expected = []
    for index, (stream, net) in enumerate(nets.items()):
        randomise(net, index)
        net.double().eval()
        lacking = model.get_submodule(stream).load_state_dict(net.state_dict(), strict=False)
        assert not lacking.unexpected_keys
        clip = rgb if stream == "spatial" else flow
        body = nn.Sequential(*list(net.children())[:-2])
        with torch.no_grad():
            maps = torch.stack([body(frame) for frame in clip.unbind(2)])
            pooled = maps.amax(0).mean((2, 3)) if order == "time_first" else maps.mean((3, 4)).amax(0)
            expected.append(net.fc(pooled))
    with torch.no_grad():
        assert isinstance(model, StMulNet)
        for ours, theirs in zip(model.stream_logits((rgb, flow)), expected, strict=True):
            assert relative_gap(ours, theirs) < 1e-10
        assert relative_gap(model((rgb, flow)), (expected[0] + expected[1]) / 2) < 1e-10


def hooked(model: StMulNet, constant: float) -> list[tuple[Tensor, Tensor]]:
    """Return a list that collects what gated branches and shortcuts see; every gate sees motion maps of one value."""
    seen: list[tuple[Tensor, Tensor]] = []
    for (number, still), (_, motion) in zip(model.spatial.blocks(), model.temporal.blocks(), strict=True):
        if number == model.config.gate_block:
            _watch(still, seen)
        if number == model.config.gate_block - 1:
            # The maps that leave this block are what the next one's gate multiplies with.
            _replace_output(motion, constant)
    return seen


def _watch(block: ImageBlock, seen: list[tuple[Tensor, Tensor]]) -> None:
    branch, shortcut = block.branch, block.shortcut
    inputs: list[Tensor] = []

    def watched_branch(x: Tensor, length: int) -> Tensor:
        inputs.append(x)
        return branch(x, length)

    def watched_shortcut(x: Tensor) -> Tensor:
        seen.append((inputs.pop(), x))
        return shortcut(x)

    block.branch, block.shortcut = watched_branch, watched_shortcut  # type: ignore[method-assign]  # to look on


def _replace_output(block: ImageBlock, constant: float) -> None:
    branch, shortcut = block.branch, block.shortcut
    block.branch = lambda x, length: torch.full_like(branch(x, length), constant)  # type: ignore[method-assign]  # on purpose
    block.shortcut = lambda x: torch.zeros_like(shortcut(x))  # type: ignore[method-assign]  # on purpose


@pytest.mark.parametrize("preact", [False, True])
def test_a_gate_of_ones_is_the_plain_two_stream_net(preact: bool) -> None:
    gated, plain = make(gate_preact=preact), make(gate="none")
    plain.load_state_dict(gated.state_dict())
    seen = hooked(gated, 1.0)
    with torch.no_grad():
        ours, _ = gated.stream_logits(pair())
        theirs, _ = plain.stream_logits(pair())
    assert len(seen) == 4
    if preact:
        # What is gated is the map before its ReLU: the branch sees that, the shortcut the map after it.
        assert all(torch.equal(branch.relu(), shortcut) and branch.min() < 0 for branch, shortcut in seen)
        assert relative_gap(ours, theirs) > 1e-3
    else:
        assert all(torch.equal(branch, shortcut) for branch, shortcut in seen)
        assert relative_gap(ours, theirs) < 1e-12


@pytest.mark.parametrize("preact", [False, True])
def test_a_gate_of_zeros_feeds_nothing_to_the_branch_and_keeps_the_shortcut(preact: bool) -> None:
    model = make(gate_preact=preact)
    seen = hooked(model, 0.0)
    with torch.no_grad():
        model.stream_logits(pair())
    assert len(seen) == 4
    for branch, shortcut in seen:
        assert not branch.any()
        assert shortcut.any()


@pytest.mark.parametrize("gate", ["mul", "add"])
@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("gate_block", [1, 2])
def test_gated_block_is_its_formula(gate: str, preact: bool, gate_block: int) -> None:
    model = make(gate=gate, gate_preact=preact, gate_block=gate_block, pool_order="space_first")
    rgb, flow = pair()
    with torch.no_grad():
        still, motion = model.spatial.start(rgb), model.temporal.start(flow)
        for (number, block), (_, other) in zip(model.spatial.blocks(), model.temporal.blocks(), strict=True):
            moving = F.relu(motion)
            branch_input = F.relu(still)
            if number == gate_block:
                appearance = still if preact else F.relu(still)
                branch_input = appearance * moving if gate == "mul" else appearance + moving
            still = block.branch(branch_input, 3) + block.shortcut(F.relu(still))
            motion = other.branch(moving, 3) + other.shortcut(moving)
        vectors = [F.relu(maps).mean((2, 3)).view(2, 3, -1).amax(1) for maps in (still, motion)]
        assert relative_gap(model.forward_features((rgb, flow)), torch.cat(vectors, dim=1)) < 1e-12


@pytest.mark.parametrize("temporal_norm", [False, True])
@pytest.mark.parametrize(
    ("init", "filter_"), [("centre", (0.0, 1.0, 0.0)), ("difference", (-1.0, 3.0, -1.0)), ("average", (1 / 3,) * 3)]
)
def test_temporal_convolution_starts_as_its_filter_for_each_channel(
    init: str, filter_: tuple[float, float, float], temporal_norm: bool
) -> None:
    with torch.random.fork_rng():
        model = models.create_model(
            "stmulnet_r18", num_classes=2, width=8, temporal_init=init, temporal_norm=temporal_norm, temporal_block=0
        ).eval()
    for stream in ("spatial", "temporal"):
        for stage in range(1, 5):
            module = model.get_submodule(f"{stream}.layer{stage}.0.temporal_conv").double()
            channels = 8 * 2 ** (stage - 1)
            images = random_clip(2 * 4, channels, 3, 5)
            kernel = torch.tensor(filter_, dtype=torch.float32).double().expand(channels, 1, 3)[..., None, None]
            clips = images.view(2, 4, channels, 3, 5).transpose(1, 2)
            expected = F.conv3d(clips, kernel, padding=(1, 0, 0), groups=channels).transpose(1, 2).flatten(0, 1)
            if temporal_norm:
                expected = expected / (1 + 1e-5) ** 0.5
            assert relative_gap(module(images, 4), expected) < 1e-12


def test_trained_temporal_convolution_is_a_3d_convolution() -> None:
    module = make().get_submodule("spatial.layer2.1.temporal_conv")
    weight, bias = module.get_parameter("conv.weight"), module.get_parameter("conv.bias")
    nn.init.normal_(weight)
    images = random_clip(2 * 5, 16, 4, 3)
    clips = images.view(2, 5, 16, 4, 3).transpose(1, 2)
    expected = F.conv3d(clips, weight[..., None], bias, padding=(1, 0, 0))
    assert relative_gap(module(images, 5), expected.transpose(1, 2).flatten(0, 1)) < 1e-12


@pytest.mark.parametrize("gate", ["mul", "add", "none"])
def test_the_appearance_loss_reaches_the_motion_stream_through_the_gate(gate: str) -> None:
    model = make(gate=gate)
    spatial, temporal = model.stream_logits(pair())
    weight = model.temporal.conv1.weight
    of_spatial = torch.autograd.grad(spatial.sum(), weight, allow_unused=True, retain_graph=True)[0]
    assert (of_spatial is None) == (gate == "none")
    assert of_spatial is None or of_spatial.abs().max() > 0
    assert torch.autograd.grad(temporal.sum(), model.spatial.conv1.weight, allow_unused=True)[0] is None


@pytest.mark.parametrize("weight", [1.0, 0.75])
def test_loss_weighs_the_appearance_stream(weight: float) -> None:
    model = make(spatial_loss_weight=weight)
    targets = torch.tensor([4, 2])
    loss, logits = model.training_loss(pair(), targets, F.cross_entropy)
    spatial, temporal = model.stream_logits(pair())
    assert relative_gap(loss, weight * F.cross_entropy(spatial, targets) + F.cross_entropy(temporal, targets)) < 1e-12
    assert relative_gap(logits, (spatial + temporal) / 2) < 1e-12


def test_options_of_the_seed_apply() -> None:
    model = make(**SEED_001)
    spatial, temporal = model.stream_logits(pair())
    assert spatial.min() >= 0
    assert temporal.min() >= 0
    conv = model.get_submodule("spatial.layer1.1.temporal_conv.conv")
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is None
    with pytest.raises(models.InvalidModelError, match="gate_block must be one of 1, not 2"):
        models.create_model("stmulnet_r18", num_classes=2, gate_block=2)


def test_wrong_clips_are_one_sentence() -> None:
    model = make()
    rgb, flow = pair()
    for clips, message in [
        (rgb, "stmulnet_r34 takes a pair of clips, (rgb, flow)"),
        ((rgb, rgb), "takes flow clips (N, 4, T, H, W), not (2, 3, 3, 32, 32)"),
        ((rgb, flow[:, :, :2]), "takes clips that differ in channels alone"),
        ((rgb[..., :8], flow[..., :8]), "needs at least 16 pixels"),
    ]:
        with pytest.raises(models.InvalidClipError) as caught:
            model(clips)
        assert message in str(caught.value)
