"""Residual networks of images over the frames of a clip, plain (TSN) or with TSM, TAM, pooling or non-local blocks.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, with the stride in the 3x3
convolution. Names of parameters are those of torchvision's ``ResNet``, so that its weights load unchanged;
temporal modules are called ``tam`` and ``nl`` inside a block, as in IBM's action-recognition networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.adaptive_aggregation import AdaptiveAggregation
from ..layers.temporal_modules import NonLocal, TemporalAggregation, TemporalModule, TemporalPool, TemporalShift
from ..video_model import init_convolutions, make_classifier
from .frame_model import FrameModel

# Numbers of the blocks that a non-local block follows, by depth and stage.
_NON_LOCAL_AFTER: dict[int, tuple[tuple[int, ...], ...]] = {
    18: ((), (1,), (1,), ()),
    34: ((), (1, 3), (1, 3, 5), ()),
    50: ((), (1, 3), (1, 3, 5), ()),
    101: ((), (1, 3), (6, 13, 20), ()),
    152: ((), (1, 3), (6, 18, 30), ()),
}
# In TSM's program, which has them in 50 layers.
_NON_LOCAL_AFTER_TSM: tuple[tuple[int, ...], ...] = ((), (0, 2), (0, 2, 4), ())


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNet2DConfig:
    """The configuration of one of these networks; its card lists the accepted values."""

    depth: int
    width: int
    zero_init: bool
    consensus: str = "average"
    seq_len: int = 1
    temporal_module: str = "none"
    """Before the first convolution of blocks: ``none``, ``shift``, ``aggregation``, ``average`` or ``max``; after it:
    ``adaptive``."""
    non_local: bool = False
    non_local_form: str = "ibm"
    """Places and kind of the non-local blocks: ``"ibm"``, or ``"tsm"`` or ``"tsm_dot_product"`` as in TSM's program."""
    temporal_stride: bool = False
    """Halve the images after each of the first three stages."""
    pooling: str = "max"
    shift_divisor: int = 8
    shift_place: str = "branch"
    """``"branch"``: only the residual branch gets the shifted images; ``"block"``: the shortcut gets them too."""
    shift_every: int = 1
    """1: before each block; 2: before every second block of a stage, from the first on."""
    segments: int = 8
    """Images for which layers of a fixed length are made: adaptive kernels, relations."""
    relations: int = 3
    blend_frames: int = 3
    blend_method: str = "sum"
    blend_depthwise: bool = True
    blend_init: str = "centre"
    partial_norm: bool = False


class ImageBlock(nn.Module):
    """``relu(branch(x) + shortcut(x))`` over images, with places for temporal modules."""

    expansion: ClassVar[int]

    def __init__(self, in_channels: int, inner: int, *, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.inner_channels = inner
        self.out_channels = inner * self.expansion
        self.tam: TemporalModule | None = None
        self.tam_in_shortcut = False
        self.adaptive = False
        """Whether `tam` comes after the first convolution of the branch, not before the block."""
        self.temporal_conv: TemporalModule | None = None
        self.nl: TemporalModule | None = None
        self._make_branch(in_channels, inner, stride)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != self.out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, self.out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(self.out_channels),
            )

    def _make_branch(self, in_channels: int, inner: int, stride: int) -> None:
        """Make the layers of the branch."""
        raise NotImplementedError

    def last_norm(self) -> nn.BatchNorm2d:
        """Return the norm that ends the branch."""
        raise NotImplementedError

    def branch(self, x: Tensor, length: int) -> Tensor:
        """Return the residual of images (N * length, in, H, W)."""
        raise NotImplementedError

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the images, projected to the shape of the residual if they differ."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor, length: int) -> Tensor:
        """Map images (N * length, in, H, W) to (N * length, out, H / stride, W / stride)."""
        seen = x if self.tam is None or self.adaptive else self.tam(x, length)
        y: Tensor = self.relu(self.branch(seen, length) + self.shortcut(seen if self.tam_in_shortcut else x))
        return y if self.nl is None else self.nl(y, length)


class BasicBlock(ImageBlock):
    """Two 3x3 convolutions."""

    expansion = 1

    def _make_branch(self, in_channels: int, inner: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)

    def last_norm(self) -> nn.BatchNorm2d:
        """Return the norm that ends the branch."""
        return self.bn2

    def branch(self, x: Tensor, length: int) -> Tensor:
        """Return the residual; a temporal convolution follows the first ReLU."""
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        if self.temporal_conv is not None:
            y = self.temporal_conv(y, length)
        residual: Tensor = self.bn2(self.conv2(y))
        return residual


class Bottleneck(ImageBlock):
    """1x1, 3x3 (with the stride) and 1x1 convolutions."""

    expansion = 4

    def _make_branch(self, in_channels: int, inner: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, inner * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner * 4)

    def last_norm(self) -> nn.BatchNorm2d:
        """Return the norm that ends the branch."""
        return self.bn3

    def branch(self, x: Tensor, length: int) -> Tensor:
        """Return the residual; a temporal convolution follows the ReLU of the 3x3 convolution."""
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        if self.tam is not None and self.adaptive:
            y = self.tam(y, length)
        y = self.relu(self.bn2(self.conv2(y)))
        if self.temporal_conv is not None:
            y = self.temporal_conv(y, length)
        residual: Tensor = self.bn3(self.conv3(y))
        return residual


DEPTHS: dict[int, tuple[type[ImageBlock], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def resnet_stem(in_channels: int, width: int, *, bias: bool = False) -> nn.Conv2d:
    """Return the first convolution."""
    return nn.Conv2d(in_channels, width, 7, 2, 3, bias=bias)


def resnet_stages(depth: int, width: int) -> list[nn.Sequential]:
    """Return the four stages, each a sequence of blocks that must be called one by one."""
    block, counts = DEPTHS[depth]
    channels = width
    stages = []
    for index, count in enumerate(counts):
        inner = width * 2**index
        blocks = []
        for number in range(count):
            blocks.append(block(channels, inner, stride=2 if number == 0 and index > 0 else 1))
            channels = inner * block.expansion
        stages.append(nn.Sequential(*blocks))
    return stages


class ResNet2D(FrameModel):
    """The network; takes any number of frames."""

    temporal_names: ClassVar[tuple[str, ...]] = (".tam.", ".nl.")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = ResNet2DConfig(**arguments)
        self.conv1 = resnet_stem(self.image_channels, config.width)
        self.bn1 = nn.BatchNorm2d(config.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages = resnet_stages(config.depth, config.width)
        init_convolutions(self)
        blocks = [[block for block in stage if isinstance(block, ImageBlock)] for stage in stages]
        _add_temporal(blocks, config)
        self.pool = TemporalPool(config.pooling, stride=2) if config.temporal_stride else None
        self.fc = make_classifier(blocks[-1][-1].out_channels, settings.num_classes)
        if config.zero_init:
            for stage_blocks in blocks:
                for block in stage_blocks:
                    nn.init.zeros_(block.last_norm().weight)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the stem and the stages."""
        return (("conv1", "bn1"), *((f"layer{number}",) for number in range(1, 5)))

    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return the averages of the last maps over space."""
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for index, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            if self.pool is not None and index > 0:
                x, length = self.pool(x, length), self.pool.pooled_length(length)
            for block in stage:
                x = block(x, length)
        return x.mean((2, 3))


def temporal_module(channels: int, config: Any) -> TemporalModule | None:
    """Return the temporal module that a configuration puts before a block, or None.

    `config` has the fields of :class:`ResNet2DConfig` from ``temporal_module`` on.
    """
    if config.temporal_module == "shift":
        return TemporalShift(config.shift_divisor)
    if config.temporal_module == "aggregation":
        return TemporalAggregation(
            channels,
            frames=config.blend_frames,
            method=config.blend_method,
            depthwise=config.blend_depthwise,
            init=config.blend_init,
        )
    if config.temporal_module == "none":
        return None
    return TemporalPool(config.temporal_module)


def _add_temporal(stages: list[list[ImageBlock]], config: ResNet2DConfig) -> None:
    for blocks, places in zip(stages, _non_local_after(config), strict=True):
        for number, block in enumerate(blocks):
            if config.temporal_module == "adaptive":
                block.tam = AdaptiveAggregation(block.inner_channels, config.segments)
                block.adaptive = True
            elif number % config.shift_every == 0:
                block.tam = temporal_module(block.in_channels, config)
                block.tam_in_shortcut = config.shift_place == "block"
            if number in places:
                block.nl = _non_local(block.out_channels, config.non_local_form)


def _non_local_after(config: ResNet2DConfig) -> tuple[tuple[int, ...], ...]:
    if not config.non_local:
        return ((), (), (), ())
    return _NON_LOCAL_AFTER[config.depth] if config.non_local_form == "ibm" else _NON_LOCAL_AFTER_TSM


def _non_local(channels: int, form: str) -> NonLocal:
    if form == "ibm":
        return NonLocal(channels)
    return NonLocal(channels, kind="dot_product" if form == "tsm_dot_product" else "gaussian", pool="after")
