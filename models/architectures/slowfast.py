"""SlowFast: a slow path over few frames and a thin fast path over all of them.

Source: Feichtenhofer et al., SlowFast Networks for Video Recognition, ICCV 2019, table 1.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.non_local import NonLocal3d
from ..layers.temporal_conv import TemporalConv3d
from ..video_model import FullyConvolutionalModel, init_convolutions, make_classifier

TemporalKernels = tuple[tuple[int, ...], ...]
"""Frames covered by the first convolution of a block: a pattern per stage, repeated over its blocks."""

# The slow path has temporal kernels in its last two stages only.
_SLOW_TEMPORAL_KERNELS: TemporalKernels = ((1,), (1,), (3,), (3,))
_FAST_TEMPORAL_KERNELS: TemporalKernels = ((3,), (3,), (3,), (3,))
_STRIDES = (1, 2, 2, 2)
NON_LOCAL_AFTER = ((), (1, 3), (1, 3, 5), ())
"""Numbers of the blocks of each stage that a non-local block follows, in the authors' published networks."""
NON_LOCAL_AFTER_HALF = ((), (), (6, 13, 20), ())
"""The same for the network of 101 layers whose stage res4 has temporal kernels in its first blocks alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowFastConfig:
    """The configuration of a SlowFast network; its card lists the accepted values."""

    depth: int
    """18 (basic blocks), or 50 or 101 (bottlenecks)."""
    alpha: int
    """The clip has `alpha` times the frames of the slow path."""
    beta_inv: int
    """The slow path has `beta_inv` times the channels of the fast path."""
    fusion_kernel: int
    fusion_ratio: int
    width: int
    slow_index: str
    lateral_norm: bool
    head_bias: bool
    zero_init: bool
    res4_temporal_blocks: int = 0
    """Number of the first blocks of stage res4 with temporal kernels, in both paths; 0 means all."""
    non_local: str = "none"
    """Kind of the non-local blocks in the slow path; see :func:`models.layers.non_local.attend`."""
    non_local_pool: str = "before"

    @property
    def fast_width(self) -> int:
        """Channels of the fast path's stem."""
        return self.width // self.beta_inv


class ResidualBlock(nn.Module):
    """``relu(branch(x) + shortcut(x))``; time is never strided."""

    expansion: ClassVar[int]

    def __init__(self, in_channels: int, inner: int, *, temporal_kernel: int, stride: int) -> None:
        super().__init__()
        out_channels = inner * self.expansion
        self.out_channels = out_channels
        self.branch = nn.Sequential(OrderedDict(self._layers(in_channels, inner, temporal_kernel, stride)))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride=(1, stride, stride), bias=False),
                nn.BatchNorm3d(out_channels),
            )
        self.relu = nn.ReLU(inplace=True)
        self.nl: NonLocal3d | None = None

    @staticmethod
    def _layers(in_channels: int, inner: int, temporal_kernel: int, stride: int) -> list[tuple[str, nn.Module]]:
        """Return the layers of the branch with their names; the last is a batch norm."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, inner * expansion, T, H / stride, W / stride)."""
        y: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return y if self.nl is None else self.nl(y)

    def zero_init(self) -> None:
        """Initialise the block so that it computes the shortcut alone."""
        last = self.branch[-1]
        if isinstance(last, nn.BatchNorm3d):
            nn.init.zeros_(last.weight)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, the first with a temporal kernel."""

    expansion = 1

    @staticmethod
    def _layers(in_channels: int, inner: int, temporal_kernel: int, stride: int) -> list[tuple[str, nn.Module]]:
        kt = temporal_kernel
        return [
            ("conv_a", _conv(in_channels, inner, (kt, 3, 3), stride=(1, stride, stride))),
            ("norm_a", nn.BatchNorm3d(inner)),
            ("relu_a", nn.ReLU(inplace=True)),
            ("conv_b", _conv(inner, inner, (1, 3, 3))),
            ("norm_b", nn.BatchNorm3d(inner)),
        ]


class Bottleneck(ResidualBlock):
    """1x1 with a temporal kernel, 3x3 in space (with the stride), 1x1."""

    expansion = 4

    @staticmethod
    def _layers(in_channels: int, inner: int, temporal_kernel: int, stride: int) -> list[tuple[str, nn.Module]]:
        return [
            ("conv_a", _conv(in_channels, inner, (temporal_kernel, 1, 1))),
            ("norm_a", nn.BatchNorm3d(inner)),
            ("relu_a", nn.ReLU(inplace=True)),
            ("conv_b", _conv(inner, inner, (1, 3, 3), stride=(1, stride, stride))),
            ("norm_b", nn.BatchNorm3d(inner)),
            ("relu_b", nn.ReLU(inplace=True)),
            ("conv_c", _conv(inner, inner * 4, (1, 1, 1))),
            ("norm_c", nn.BatchNorm3d(inner * 4)),
        ]


_DEPTHS: dict[int, tuple[type[ResidualBlock], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


_IMAGE_NAMES = [
    (r"^stem\.conv\.", "conv1."),
    (r"^stem\.norm\.", "bn1."),
    *((rf"branch\.conv_{letter}\.", f"conv{number}.") for number, letter in enumerate("abc", 1)),
    *((rf"branch\.norm_{letter}\.", f"bn{number}.") for number, letter in enumerate("abc", 1)),
    (r"shortcut\.", "downsample."),
]


def image_name(ours: str) -> str:
    """Return torchvision's name, in a residual network of images, of a parameter of a path."""
    for pattern, replacement in _IMAGE_NAMES:
        ours = re.sub(pattern, replacement, ours)
    return re.sub(r"stages\.(\d)\.", lambda stage: f"layer{int(stage[1]) + 1}.", ours)


class Pathway(nn.Module):
    """A residual network over time, with stages that are called one by one.

    `fused` is the number of channels that are concatenated to the input of each stage. `stage_inputs` and
    `out_channels` are the widths before that and after the last stage.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        depth: int,
        stem_kernel: int,
        temporal_kernels: TemporalKernels,
        stem_temporal_stride: int = 1,
        fused: tuple[int, ...] = (0, 0, 0, 0),
        stem_pool_temporal_stride: int = 1,
    ) -> None:
        super().__init__()
        block, blocks = _DEPTHS[depth]
        self.stem = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv=_conv(in_channels, width, (stem_kernel, 7, 7), stride=(stem_temporal_stride, 2, 2)),
                norm=nn.BatchNorm3d(width),
                relu=nn.ReLU(inplace=True),
                pool=nn.MaxPool3d((1, 3, 3), stride=(stem_pool_temporal_stride, 2, 2), padding=(0, 1, 1)),
            )
        )
        channels = width
        stage_inputs, stages = [], []
        for index, (count, kernels, stride) in enumerate(zip(blocks, temporal_kernels, _STRIDES, strict=True)):
            stage_inputs.append(channels)
            inner = width * 2**index
            layers: list[nn.Module] = []
            for number in range(count):
                layers.append(
                    block(
                        channels + (fused[index] if number == 0 else 0),
                        inner,
                        temporal_kernel=kernels[number % len(kernels)],
                        stride=stride if number == 0 else 1,
                    )
                )
                channels = inner * block.expansion
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.stage_inputs = tuple(stage_inputs)
        self.out_channels = channels

    def add_non_local(self, kind: str, pool: str, *, after: tuple[tuple[int, ...], ...]) -> None:
        """Put a non-local block behind the blocks with these numbers in each stage, as far as there are."""
        for stage, numbers in zip(self.stages, after, strict=True):
            for number, block in enumerate(stage.children()):
                if number in numbers and isinstance(block, ResidualBlock):
                    block.nl = NonLocal3d(block.out_channels, kind=kind, pool=pool)

    def image_names(self, prefix: str) -> dict[str, str]:
        """Return torchvision's names of this path's parameters, by our names with `prefix` in front."""
        return {prefix + ours: image_name(ours) for ours in self.state_dict() if ".nl." not in ours}


class SlowFast(FullyConvolutionalModel):
    """The two paths, joined by laterals from fast to slow before each stage.

    Input (N, C, T, H, W) is the fast path's clip; the slow path takes T / alpha frames of it. T must be a multiple
    of alpha, because the laterals have a stride of alpha in time; any other T raises InvalidClipError.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = SlowFastConfig(**arguments)
        self.fast = Pathway(
            settings.in_channels,
            config.fast_width,
            depth=config.depth,
            stem_kernel=5,
            temporal_kernels=_limited(_FAST_TEMPORAL_KERNELS, config),
        )
        self.laterals = nn.ModuleList(_lateral(channels, config) for channels in self.fast.stage_inputs)
        self.slow = Pathway(
            settings.in_channels,
            config.width,
            depth=config.depth,
            stem_kernel=1,
            temporal_kernels=_limited(_SLOW_TEMPORAL_KERNELS, config),
            fused=tuple(channels * config.fusion_ratio for channels in self.fast.stage_inputs),
        )
        if config.non_local != "none":
            after = NON_LOCAL_AFTER_HALF if config.res4_temporal_blocks else NON_LOCAL_AFTER
            self.slow.add_non_local(config.non_local, config.non_local_pool, after=after)
        features = self.slow.out_channels + self.fast.out_channels
        self.head = make_classifier(features, settings.num_classes, bias=config.head_bias)
        init_convolutions(self)
        if config.zero_init:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    module.zero_init()

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the stem and the stages of both paths, each with the lateral that it feeds."""
        stem = ("fast.stem", "slow.stem", "laterals.0")
        stages = [(f"fast.stages.{i}", f"slow.stages.{i}", f"laterals.{i + 1}") for i in range(len(self.laterals))]
        return (stem, *stages[:-1], stages[-1][:2])

    def forward_maps(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Return the slow path's last maps, then the fast path's."""
        slow = self.slow.stem(slow_frames(clip, self.config.alpha, self.config.slow_index))
        fast = self.fast.stem(clip)
        for lateral, slow_stage, fast_stage in zip(self.laterals, self.slow.stages, self.fast.stages, strict=True):
            slow = slow_stage(torch.cat((slow, lateral(fast)), dim=1))
            fast = fast_stage(fast)
        return slow, fast

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's ResNet of the same depth, of which the slow path is made."""
        names = self.slow.image_names("slow.")
        if self.config.depth > 18:
            return names
        # The first basic block has a projection because of the lateral alone, which the image network lacks.
        return {ours: theirs for ours, theirs in names.items() if not ours.startswith("slow.stages.0.0.shortcut.")}

    def from_image(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor; a kernel that also sees a lateral gets zeros for it, so that the slow path starts alone.

        MMAction2 inflates an image network into SlowFast in the same way.
        """
        if tensor.ndim < 4:
            return tensor
        more = self.get_parameter(name).shape[1] - tensor.shape[1]
        is_fused = re.fullmatch(r"slow\.stages\.\d\.0\.(branch\.conv_a|shortcut\.0)\.weight", name)
        if not is_fused or more <= 0:
            return tensor
        return torch.cat((tensor, tensor.new_zeros(tensor.shape[0], more, *tensor.shape[2:])), dim=1)


def slow_frames(clip: Tensor, alpha: int, rule: str) -> Tensor:
    """Return the slow path's T / alpha frames of a clip (N, C, T, H, W).

    ``"stride"`` takes every alpha-th frame, from the first on. ``"linspace"`` spreads them from the
    first frame to the last, rounding down: floor(i (T - 1) / (T / alpha - 1)); a single frame is the
    first. The published weights were trained with linspace.
    """
    if rule == "stride":
        return clip[:, :, ::alpha]
    frames = clip.shape[2]
    count = frames // alpha
    # Integers, computed on the clip's device: exact, and without a copy from the host.
    index = torch.arange(count, device=clip.device) * (frames - 1) // max(count - 1, 1)
    return clip.index_select(2, index)


def _limited(kernels: TemporalKernels, config: SlowFastConfig) -> TemporalKernels:
    """Return the temporal kernels, in res4 limited to its first blocks if the configuration asks for it."""
    temporal = config.res4_temporal_blocks
    if temporal == 0:
        return kernels
    blocks = _DEPTHS[config.depth][1][2]
    return (*kernels[:2], kernels[2] * temporal + (1,) * (blocks - temporal), kernels[3])


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int, int],
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
) -> nn.Conv3d:
    if kernel[0] > 1 and kernel[1:] == (1, 1):
        return TemporalConv3d(in_channels, out_channels, kernel[0], stride=stride[0])
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)


def _lateral(fast_channels: int, config: SlowFastConfig) -> nn.Sequential:
    channels = fast_channels * config.fusion_ratio
    conv = _conv(fast_channels, channels, (config.fusion_kernel, 1, 1), stride=(config.alpha, 1, 1))
    layers = OrderedDict[str, nn.Module](conv=conv)
    if config.lateral_norm:
        layers["norm"] = nn.BatchNorm3d(channels)
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)
