"""Our models equal torchvision's of the same name, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet, video
from torchvision.models.video import mvit
from torchvision.models.video import resnet as video_resnet

import models

from .oracles import Undrawn, assert_same_network, random_clip, randomise, relative_gap


def deep(block: type[nn.Module], conv: type[nn.Module], layers: list[int]) -> Callable[[], nn.Module]:
    split = conv is video_resnet.Conv2Plus1D
    stem = video_resnet.R2Plus1dStem if split else video_resnet.BasicStem
    return lambda: video.VideoResNet(block, [conv] * 4, layers, stem, num_classes=7)


FULL, SPLIT = video_resnet.Conv3DSimple, video_resnet.Conv2Plus1D
BASIC, BOTTLENECK = video_resnet.BasicBlock, video_resnet.Bottleneck
RESNETS: list[Any] = [
    ("r3d_18", None, {}),
    ("mc3_18", None, {}),
    ("r2plus1d_18", None, {}),
    pytest.param("r3d_50", deep(BOTTLENECK, FULL, [3, 4, 6, 3]), {"stem_pool": False}, marks=pytest.mark.slow),
    pytest.param("r3d_34", deep(BASIC, FULL, [3, 4, 6, 3]), {}, marks=pytest.mark.slow),
    pytest.param("r3d_101", deep(BOTTLENECK, FULL, [3, 4, 23, 3]), {"stem_pool": False}, marks=pytest.mark.slow),
    pytest.param("r2plus1d_34", deep(BASIC, SPLIT, [3, 4, 6, 3]), {}, marks=pytest.mark.slow),
    pytest.param("r2plus1d_50", deep(BOTTLENECK, SPLIT, [3, 4, 6, 3]), {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "build", "options"), RESNETS)
def test_residual_network_computes_the_same(
    name: str, build: Callable[[], nn.Module] | None, options: dict[str, Any]
) -> None:
    theirs = video.__dict__[name](weights=None, num_classes=7) if build is None else build()
    randomise(theirs, seed=1)
    with Undrawn():
        ours = models.create_model(name, num_classes=7, dropout=0.0, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.double()
    ours.double()
    clip = random_clip(2, 3, 8, 32, 32)
    assert_same_network(ours, theirs, clip, lambda: clip, {key: key for key in ours.state_dict()})


@pytest.mark.parametrize("name", ["r2plus1d_18", "r2plus1d_50"])
def test_midplanes_of_the_paper_are_computed_per_convolution(name: str) -> None:
    with torch.device("meta"):
        ours = models.create_model(name, num_classes=2, midplanes="paper").state_dict()
        theirs = models.create_model(name, num_classes=2).state_dict()
    if name == "r2plus1d_18":
        key, same = "layer2.0.conv2.0.0.weight", "layer2.1.conv2.0.0.weight"
        assert (ours[key].shape[0], theirs[key].shape[0]) == (288, 230)
        # In a block that changes nothing both rules agree.
        assert ours[same].shape == theirs[same].shape
    else:
        # Of 64 channels to 64, in a block of 256 channels: floor(27 64^2 / (9 64 + 3 64)), and with 256 for 64.
        key = "layer1.1.conv2.0.0.weight"
        assert (ours[key].shape[0], theirs[key].shape[0]) == (144, 177)


@pytest.mark.parametrize(("frames", "size"), [(22, 64), pytest.param(18, 224, marks=pytest.mark.slow)])
def test_s3d_computes_the_same(frames: int, size: int) -> None:
    theirs = video.s3d(weights=None, num_classes=7, dropout=0.0)
    if size < 224:
        # Their window does not fit maps of less than 7 x 7; ours shrinks to what there is.
        theirs.avgpool = nn.AvgPool3d((2, 2, 2), stride=1)
    randomise(theirs, seed=1)
    with Undrawn():
        ours = models.create_model("s3d", num_classes=7, dropout=0.0, norm_momentum=0.001)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.double()
    ours.double()
    # 22 frames leave three positions in time, of which the middle one counts twice.
    clip = random_clip(2, 3, frames, size, size)
    assert_same_network(ours, theirs, clip, lambda: clip, {key: key for key in ours.state_dict()})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("swin3d_t", {"embed_dim": 32, "depths": [2, 2, 6, 2], "num_heads": [1, 2, 4, 8]}),
        pytest.param(
            "swin3d_s",
            {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24]},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "swin3d_b",
            {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_swin_computes_the_same(name: str, options: dict[str, Any]) -> None:
    theirs = video.SwinTransformer3d(
        patch_size=[2, 4, 4], window_size=[8, 7, 7], stochastic_depth_prob=0.0, num_classes=7, **options
    )
    ours = models.create_model(name, num_classes=7, width=options["embed_dim"], stochastic_depth=0.0)
    # Windows of 8 x 7 x 7, shifted and padded, over 10 x 9 x 9 positions.
    _compare_transformers(ours, theirs, random_clip(2, 3, 20, 36, 36))


def resized(blocks: Any, width: int) -> list[mvit.MSBlockConfig]:
    """Return the settings of torchvision's blocks of 96 channels with another width."""
    settings = []
    for block in blocks:
        attention, last = block.attn, block.mlp[3]
        pool = attention.pool_q
        settings.append(
            mvit.MSBlockConfig(
                num_heads=attention.num_heads,
                input_channels=attention.qkv.in_features * width // 96,
                output_channels=last.out_features * width // 96,
                kernel_q=[3, 3, 3] if pool is not None else [],
                kernel_kv=[3, 3, 3],
                stride_q=list(pool.pool.stride) if pool is not None else [],
                stride_kv=list(attention.pool_k.pool.stride),
            )
        )
    return settings


def published_b() -> list[mvit.MSBlockConfig]:
    """Return the settings of MViTv2-B of 24 channels, by PySlowFast's rules and its ``MVITv2_B_32x3.yaml``.

    From these blocks on, channels and heads double, queries are pooled by two, and keys and values by half as much.
    """
    doubled, settings = (2, 5, 21), []
    channels, heads, pooled = 24, 1, 8
    for number in range(24):
        stride = 2 if number in doubled else 1
        inside = channels * stride
        heads, pooled = heads * stride, pooled // stride
        settings.append(
            mvit.MSBlockConfig(heads, channels, inside, [3] * 3, [3] * 3, [1, stride, stride], [1, pooled, pooled])
        )
        channels = inside
    return settings


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("mvit_v1_b", 24),
        ("mvit_v2_s", 24),
        pytest.param("mvit_v1_b", 96, marks=pytest.mark.slow),
        pytest.param("mvit_v2_s", 96, marks=pytest.mark.slow),
        pytest.param("mvit_v2_b", 24, marks=pytest.mark.slow),
    ],
)
def test_mvit_computes_the_same(name: str, width: int) -> None:
    ours = models.create_model(
        name,
        num_classes=7,
        dropout=0.0,
        width=width,
        table_frames=4,
        table_size=64,
        stochastic_depth=0.0,
    )
    settings = published_b() if name == "mvit_v2_b" else resized(video.__dict__[name](weights=None).blocks, width)
    second = name.startswith("mvit_v2")
    theirs = mvit.MViT(
        spatial_size=(64, 64),
        temporal_size=4,
        block_setting=settings,
        residual_pool=second,
        residual_with_cls_embed=False,
        rel_pos_embed=second,
        proj_after_attn=second,
        dropout=0.0,
        num_classes=7,
    )
    _compare_transformers(ours, theirs, random_clip(2, 3, 4, 64, 64))


def test_positions_of_mvit_are_interpolated_for_other_clips() -> None:
    model = models.create_model("mvit_v1_b", num_classes=2, width=8, table_frames=4, table_size=32).double()
    seen: list[torch.Tensor] = []
    model.get_submodule("blocks.0").register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    nn.init.zeros_(model.get_parameter("conv_proj.weight"))
    nn.init.zeros_(model.get_parameter("conv_proj.bias"))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 8, 32, 64, dtype=torch.float64))
    spatial = model.get_parameter("pos_encoding.spatial_pos").view(8, 8, 8)
    temporal = model.get_parameter("pos_encoding.temporal_pos")
    positions = seen[0][0, 1:].view(4, 8, 16, 8)
    # Twice the frames: those of the ends stay, those between are a quarter of the way. Twice the columns, likewise.
    torch.testing.assert_close(positions[0, 3, 0], spatial[3, 0] + temporal[0])
    between = 0.75 * spatial[3, 0] + 0.25 * spatial[3, 1] + 0.75 * temporal[0] + 0.25 * temporal[1]
    torch.testing.assert_close(positions[1, 3, 1], between)


@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_mvit_takes_clips_of_other_sizes(name: str) -> None:
    ours = models.create_model(name, num_classes=2, width=8, table_frames=4, table_size=64)
    for frames, size in [(2, 32), (9, 45), (4, 64)]:
        assert ours(torch.zeros(1, 3, frames, size, size)).shape == (1, 2)


def _compare_transformers(ours: models.VideoModel, theirs: nn.Module, clip: torch.Tensor) -> None:
    randomise(theirs, seed=1)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.double()
    ours.double()
    logits, expected = ours(clip), theirs(clip)
    assert relative_gap(logits, expected) < 1e-10
    logits.square().sum().backward()
    expected.square().sum().backward()
    grads = dict(theirs.named_parameters())
    largest = max(float(parameter.grad.abs().max()) for parameter in grads.values() if parameter.grad is not None)
    for name, parameter in ours.named_parameters():
        theirs_of = grads[name].grad
        assert parameter.grad is not None, name
        assert theirs_of is not None, name
        # The keys' bias has no effect on a softmax: what it gets is rounding of the larger gradients.
        assert float((parameter.grad - theirs_of).abs().max()) < 1e-10 * largest, name


@pytest.mark.parametrize("name", ["r3d_18", "r3d_50", "mc3_18", "s3d_resnet50"])
def test_inflated_network_sees_the_image_in_a_clip_that_stands_still(name: str) -> None:
    bottleneck = name.endswith("50")
    image_net = resnet.resnet50(num_classes=3) if bottleneck else resnet.resnet18(num_classes=3)
    randomise(image_net, seed=4)
    image_net.double().eval()
    options: dict[str, dict[str, Any]] = {
        "r3d_18": {"stem_pool": True, "without_t_stride": True},
        "r3d_50": {"without_t_stride": True},
        "mc3_18": {},
        "s3d_resnet50": {"without_t_stride": True},
    }
    if name == "mc3_18":
        image_net.maxpool = nn.Identity()  # MC3's stem has no pool
    video_net = models.create_model(name, num_classes=3, **options[name]).double().eval()
    report = models.load_inflated(video_net, image_net.state_dict())
    assert {"fc.bias", "fc.weight"} <= set(report.reset)
    if name.startswith("s3d"):
        # Temporal convolutions come after a ReLU: one that hands its input on changes nothing.
        for key, module in video_net.named_modules():
            if isinstance(module, nn.Conv3d) and key.endswith("_t"):
                nn.init.dirac_(module.weight)
            if isinstance(module, nn.BatchNorm3d) and key.endswith("_t"):
                module.weight.data.fill_((1 + module.eps) ** 0.5)
        assert all("_t." in key or key.startswith("fc.") for key in report.reset)
    image = random_clip(1, 3, 1, 32, 32)
    maps: dict[str, torch.Tensor] = {}
    image_net.layer4.register_forward_hook(lambda *call: maps.update(image=call[2]))
    video_net.get_submodule("layer4").register_forward_hook(lambda *call: maps.update(video=call[2]))
    with torch.no_grad():
        image_net(image[:, :, 0])
        # Zeros padded in time reach 17 frames from either end.
        video_net(image.expand(-1, -1, 36, -1, -1))
    middle = maps["video"].shape[2] // 2
    assert relative_gap(maps["video"][:, :, middle], maps["image"]) < 1e-10
