"""VGG-16 over the frames of a clip, as published, with batch norm, and in the "reduced fc" form.

Sources: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015,
table 1, column D; Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, section 3.1 (fully connected layers
turned into dilated convolutions). Names of parameters are those of torchvision's ``VGG``, and for the reduced
form those of the 2-D Kinetics networks that use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..card import ModelSettings
from ..video_model import init_convolutions, make_classifier
from .frame_model import FrameModel, small_linear

_STAGES = (2, 2, 3, 3, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class VGGConfig:
    """The configuration of one of these networks; its card lists the accepted values."""

    width: int
    consensus: str
    seq_len: int
    batch_norm: bool


class VGG16(FrameModel):
    """Thirteen convolutions and three fully connected layers; maps are averaged to 7 x 7 between them."""

    classifier_name = "classifier.6"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = VGGConfig(**arguments)
        pools: list[nn.Module] = [nn.MaxPool2d(2, 2) for _ in _STAGES]
        self.features = nn.Sequential(*_convolutions(self.image_channels, config, pools))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        hidden = config.width * 64
        init_convolutions(self)
        # The dropout before the last layer is applied by FrameModel.
        self.classifier = nn.Sequential(
            small_linear(config.width * 8 * 49, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(settings.dropout),
            small_linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Identity(),
            make_classifier(hidden, settings.num_classes),
        )

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the convolutions between pools, then the hidden linear layers."""
        hidden = ("classifier.0", "classifier.3")
        return (*_stages_of(self.features, "features"), hidden)

    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return the outputs of the last hidden layer."""
        hidden: Tensor = self.classifier[:-1](self.avgpool(self.features(images)).flatten(1))
        return hidden


class VGG16ReducedFC(FrameModel):
    """The convolutions, a dilated and a 1x1 convolution of twice their width, a 3x3 of stride 3, and two linear layers.

    At the published 300 pixels the last maps are 3 x 3; other sizes are averaged, or repeated, to 3 x 3.
    """

    classifier_name = "classifier.4"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = VGGConfig(**arguments)
        pools: list[nn.Module] = [
            nn.MaxPool2d(2, 2),
            nn.MaxPool2d(2, 2),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.MaxPool2d(2, 2),
            nn.MaxPool2d(3, 1, 1),
        ]
        body, wide = config.width * 8, config.width * 16
        layers = [
            *_convolutions(self.image_channels, config, pools),
            nn.Conv2d(body, wide, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wide, 1),
            nn.ReLU(inplace=True),
        ]
        self.conv_base = nn.Module()
        self.conv_base.conv_base = nn.Sequential(*layers)
        self.extra_layers = nn.Sequential(nn.MaxPool2d(2, 2), nn.Conv2d(wide, wide, 3, 3), nn.ReLU(inplace=True))
        self.grid = nn.AdaptiveAvgPool2d(3)
        init_convolutions(self)
        # The dropout before the last layer is applied by FrameModel.
        self.classifier = nn.Sequential(
            nn.Dropout(settings.dropout),
            small_linear(wide * 9, wide),
            nn.ReLU(inplace=True),
            nn.Identity(),
            make_classifier(wide, settings.num_classes),
        )

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the convolutions between pools, the dilated ones, then the extra ones with the hidden linear layer."""
        name = "conv_base.conv_base"
        *stages, dilated = _stages_of(self.conv_base.get_submodule("conv_base"), name)
        return (*stages, dilated, ("extra_layers", "classifier.1"))

    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return the outputs of the last hidden layer."""
        maps = self.grid(self.extra_layers(self.conv_base.get_submodule("conv_base")(images)))
        hidden: Tensor = self.classifier[:-1](maps.flatten(1))
        return hidden


def _convolutions(in_channels: int, config: VGGConfig, pools: list[nn.Module]) -> list[nn.Module]:
    """Return the thirteen convolutions and, after each stage, its pool."""
    layers: list[nn.Module] = []
    for index, (count, pool) in enumerate(zip(_STAGES, pools, strict=True)):
        channels = config.width * min(2**index, 8)
        for _ in range(count):
            layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
            if config.batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(inplace=True))
            in_channels = channels
        layers.append(pool)
    return layers


def _stages_of(layers: nn.Module, name: str) -> list[tuple[str, ...]]:
    """Return the names of the layers with parameters, `name` in front, cut at the pools."""
    stages: list[list[str]] = [[]]
    for number, layer in layers.named_children():
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
        elif any(True for _ in layer.parameters()):
            stages[-1].append(f"{name}.{number}")
    return [tuple(stage) for stage in stages if stage]
