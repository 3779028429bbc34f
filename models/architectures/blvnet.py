"""bLVNet-TAM: a big branch sees every second frame at half resolution, a little one the frames between.

Source: Fan et al., More Is Less: Learning Efficient Video Representations by Big-Little Network and Depthwise
Temporal Aggregation, NeurIPS 2019, sections 3.1 and 3.2; the layers are those of Big-Little Net (Chen et al.,
ICLR 2019). Parameters have the names of the authors' network; those of the temporal modules are named as in TAM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..card import ModelSettings
from ..layers.temporal_modules import TemporalAggregation, TemporalModule, as_clips
from ..video_model import init_convolutions, make_classifier
from .frame_model import FrameModel

_DEPTHS = {50: (3, 4, 6, 3), 101: (4, 8, 18, 3), 152: (5, 12, 30, 3)}
_STRIDES = (2, 2, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BLVNetConfig:
    """The configuration of one of these networks; its card lists the accepted values."""

    depth: int
    width: int
    alpha: int
    """The little branch has 1 / `alpha` of the big one's channels."""
    beta: int
    """The little branch has about 1 / `beta` of the big one's blocks."""
    group: int
    """Frames of which the big branch sees one: 2."""
    blend_frames: int
    blend_init: str
    zero_init: bool
    consensus: str

    def aggregation(self, channels: int) -> TemporalAggregation:
        """Return the module that combines neighbouring images."""
        return TemporalAggregation(channels, frames=self.blend_frames, init=self.blend_init)


class Block(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions; the last ReLU may be left to the caller."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        last_relu: bool = True,
    ) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, channels, stride)
        self.last_relu = last_relu
        self.tam: TemporalModule | None = None

    def forward(self, x: Tensor, length: int) -> Tensor:
        """Map images (N * length, in, H, W) to (N * length, channels, H / stride, W / stride)."""
        seen = x if self.tam is None else self.tam(x, length)
        y = self.relu(self.bn1(self.conv1(seen)))
        y = self.relu(self.bn2(self.conv2(y)))
        # As in the authors' network, a projection gets the branch's aggregated input, an identity the plain one.
        shortcut = x if self.downsample is None else self.downsample(seen)
        summed: Tensor = self.bn3(self.conv3(y)) + shortcut
        return self.relu(summed) if self.last_relu else summed


class BigLittle(nn.Module):
    """A stage: aggregation over time, the two branches, their sum, and a block with the stage's stride."""

    def __init__(self, in_channels: int, channels: int, blocks: int, stride: int, config: BLVNetConfig) -> None:
        super().__init__()
        thin = channels // config.alpha
        self.big = _row(in_channels, channels, blocks - 1, stride=2, last_relu=False)
        self.little = _row(in_channels, thin, max(1, blocks // config.beta - 1))
        self.little_e = nn.Sequential(nn.Conv2d(thin, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.fusion = _row(channels, channels, 1, stride=stride)
        self.relu = nn.ReLU(inplace=True)
        self.tam = config.aggregation(in_channels)

    def forward(self, x: Tensor, length: int) -> Tensor:
        """Map images (N * length, in, H, W) to the pairs' maps (N * length / 2, channels, H / stride, W / stride)."""
        little, big = split_pairs(self.tam(x, length))
        pairs = length // 2
        big = run(self.big, big, pairs)
        little = self.little_e(run(self.little, little, pairs))
        merged = self.relu(F.interpolate(big, little.shape[2:]) + little)
        return run(self.fusion, merged, pairs)


class BLVNetTAM(FrameModel):
    """The network; it takes an even number of frames and computes one feature vector per pair."""

    temporal_names = ("tam.",)

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = BLVNetConfig(**arguments)
        self._make_stem(settings.in_channels, config)
        counts = _DEPTHS[config.depth]
        channels = config.width
        for index, (count, stride) in enumerate(zip(counts, _STRIDES, strict=False)):
            wide = config.width * 4 * 2**index
            setattr(self, f"layer{index + 1}", BigLittle(channels, wide, count, stride, config))
            channels = wide
        self.layer4 = _row(channels, channels * 2, counts[3], stride=2)
        init_convolutions(self)
        for block in self.layer4:
            if isinstance(block, Block):
                block.tam = config.aggregation(block.conv1.in_channels)
        for module in self.modules():
            if isinstance(module, TemporalAggregation):
                module.reset_parameters()
            if isinstance(module, Block) and config.zero_init:
                nn.init.zeros_(module.bn3.weight)
        self.fc = make_classifier(channels * 2, settings.num_classes)

    def _make_stem(self, in_channels: int, config: BLVNetConfig) -> None:
        width, thin = config.width, config.width // config.alpha
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.tam = config.aggregation(width)
        self.b_conv0 = nn.Conv2d(width, width, 3, 2, 1, bias=False)
        self.bn_b0 = nn.BatchNorm2d(width)
        self.l_conv0 = nn.Conv2d(width, thin, 3, 1, 1, bias=False)
        self.bn_l0 = nn.BatchNorm2d(thin)
        self.l_conv1 = nn.Conv2d(thin, thin, 3, 2, 1, bias=False)
        self.bn_l1 = nn.BatchNorm2d(thin)
        self.l_conv2 = nn.Conv2d(thin, width, 1, bias=False)
        self.bn_l2 = nn.BatchNorm2d(width)
        self.bl_init = nn.Conv2d(width, width, 1, bias=False)
        self.bn_bl_init = nn.BatchNorm2d(width)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the stem and the stages."""
        kinds = (nn.Conv2d, nn.BatchNorm2d, TemporalAggregation)
        stem = tuple(name for name, child in self.named_children() if isinstance(child, kinds))
        return (stem, *((f"layer{number}",) for number in range(1, 5)))

    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return the averages of the last maps over space, one vector per pair of frames."""
        x = self._stem(images, length)
        for name in ("layer1", "layer2", "layer3"):
            # Both frames of a pair continue with the maps of the pair.
            x = self.get_submodule(name)(x.repeat_interleave(2, dim=0), length)
        return run(self.layer4, x, length // 2).mean((2, 3))

    def _stem(self, images: Tensor, length: int) -> Tensor:
        little, big = split_pairs(self.tam(self.relu(self.bn1(self.conv1(images))), length))
        big = self.bn_b0(self.b_conv0(big))
        little = self.relu(self.bn_l0(self.l_conv0(little)))
        little = self.relu(self.bn_l1(self.l_conv1(little)))
        merged = self.relu(big + self.bn_l2(self.l_conv2(little)))
        y: Tensor = self.relu(self.bn_bl_init(self.bl_init(merged)))
        return y


def split_pairs(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second image of every pair, (N * T / 2, ...) each, of images (N * T, ...), T even."""
    pairs = as_clips(images, 2)
    return pairs[:, 0], pairs[:, 1]


def run(blocks: nn.Sequential, images: Tensor, length: int) -> Tensor:
    """Return images (N * length, ...) after blocks that also take `length`."""
    for block in blocks:
        images = block(images, length)
    return images


def _row(in_channels: int, channels: int, count: int, *, stride: int = 1, last_relu: bool = True) -> nn.Sequential:
    """Return a sequence of blocks. `last_relu` concerns the last of several; a single block always has its ReLU."""
    first = Block(in_channels, channels, stride=stride)
    more = [Block(channels, channels, last_relu=last_relu or number < count - 1) for number in range(1, count)]
    return nn.Sequential(first, *more)


def _downsample(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    layers: list[nn.Module] = [] if stride == 1 else [nn.AvgPool2d(3, stride, 1)]
    if in_channels != channels:
        layers += [nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers) if layers else None
