"""The base class of models of two clips, RGB and flow, and the late fusion of two image networks.

Source: Simonyan and Zisserman, Two-Stream Convolutional Networks for Action Recognition in Videos, NIPS 2014.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..card import ModelInfo, ModelSettings
from ..catalogue import check_clip_of, model_settings
from ..errors import InvalidClipError
from ..video_model import VideoModel, build_model
from .frame_model import FrameModel, images_format

Clips = Tensor | tuple[Tensor, Tensor]
"""The input of a two-stream model, (rgb, flow). A single tensor is refused with an error."""


class TwoStreamModel(VideoModel):
    """A network from (rgb (N, C, T, H, W), flow (N, flow_channels, T, H, W)) to logits (N, num_classes).

    A subclass names its two submodules in `streams`, and defines their features and logits and how these are fused.
    """

    streams: ClassVar[tuple[str, str]]

    @property
    def flow_channels(self) -> int:
        """Channels of the second clip."""
        return int(self.settings.hparams["flow_channels"])

    @property
    def num_features(self) -> int:
        """Length of a clip's feature vector: both streams' together."""
        return sum(self._linear(name).in_features for name in self.classifier_names)

    @abstractmethod
    def stream_features(self, clips: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return each stream's vectors, pooled over time and space."""

    @abstractmethod
    def stream_logits(self, clips: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return each stream's logits (N, num_classes); raise InvalidClipError for shapes that do not fit."""

    @abstractmethod
    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the fused logits of the streams."""

    def forward(self, clip: Clips) -> Tensor:
        """Return the fused logits (N, num_classes) of a pair (rgb, flow)."""
        return self.fuse(*self.stream_logits(self.both(clip)))

    def forward_features(self, clip: Clips) -> Tensor:
        """Return (N, num_features): the first stream's vector, then the second's."""
        return torch.cat(self.stream_features(self.both(clip)), dim=1)

    @property
    def input_parts(self) -> dict[str, str]:
        """Return the stream of each input."""
        return dict(zip(self.info.inputs, self.streams, strict=True))

    def both(self, clip: Clips) -> tuple[Tensor, Tensor]:
        """Return the pair of clips; raise InvalidClipError for anything else."""
        if isinstance(clip, Tensor) or len(clip) != 2:
            raise InvalidClipError(f"{self.name} takes a pair of clips, (rgb, flow)")
        return clip[0], clip[1]

    def check_input(self, clip: Clips) -> None:
        """Raise InvalidClipError unless the pair is one that the model can take."""
        rgb, flow = (tuple(one.shape) for one in self.both(clip))
        for what, shape, channels in (("rgb", rgb, self.settings.in_channels), ("flow", flow, self.flow_channels)):
            if len(shape) != 5 or shape[1] != channels:
                raise InvalidClipError(f"{self.name} takes {what} clips (N, {channels}, T, H, W), not {shape}")
        if rgb[:1] + rgb[2:] != flow[:1] + flow[2:]:
            raise InvalidClipError(f"{self.name} takes clips that differ in channels alone, not {rgb} and {flow}")
        check_clip_of(self.info, self.settings.hparams, frames=rgb[2], size=min(rgb[3:]))

    def get_classifier(self) -> nn.Linear:
        """Return the first stream's last layer; `classifier_names` names both."""
        return self._linear(self.classifier_names[0])

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the moved module; ``channels_last_3d`` means ``channels_last`` for its 2-D kernels."""
        return super().to(*args, **images_format(kwargs))

    def _linear(self, name: str) -> nn.Linear:
        layer = self.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"{type(self).__name__}.{name} is not a linear layer")
        return layer


class LateFusion(TwoStreamModel):
    """Two image networks, one for RGB and one for flow, of which only the logits are fused.

    The loss is the sum of both losses, so each network is trained as if alone. ``fusion="probability"`` returns the
    logarithm of the weighted mean of their softmaxes; ``"logit"`` returns the weighted mean of their logits.
    """

    streams = ("rgb", "flow")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        values = settings.arguments()
        # The values that remain after those of the fusion belong to the networks.
        backbone, channels = str(values.pop("backbone")), values.pop("flow_channels")
        self.fusion, self.flow_weight = str(values.pop("fusion")), float(values.pop("flow_weight"))
        self.rgb = _network(backbone, settings, settings.in_channels, values)
        self.flow = _network(backbone, settings, int(channels), values)

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of both networks' classifiers, then of their auxiliary classifiers."""
        names = (("rgb", self.rgb.classifier_names), ("flow", self.flow.classifier_names))
        last = [f"{stream}.{of_stream[0]}" for stream, of_stream in names]
        return (*last, *(f"{stream}.{name}" for stream, of_stream in names for name in of_stream[1:]))

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the layers of both networks."""
        both = zip(self.rgb.layer_names, self.flow.layer_names, strict=True)
        return tuple((*(f"rgb.{one}" for one in rgb), *(f"flow.{one}" for one in flow)) for rgb, flow in both)

    @property
    def num_features(self) -> int:
        """Length of a clip's feature vector: both streams' together."""
        return self.rgb.num_features + self.flow.num_features

    def stream_features(self, clips: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return each network's average over the clip's images."""
        return self.rgb.forward_features(clips[0]), self.flow.forward_features(clips[1])

    def stream_logits(self, clips: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (N, num_classes) of the RGB and of the flow network."""
        self.check_input(clips)
        return self.rgb(clips[0]), self.flow(clips[1])

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the fusion of the logits of RGB, with weight 1, and of flow, with weight `flow_weight`."""
        share = self.flow_weight / (1 + self.flow_weight)
        if self.fusion == "logit":
            return (1 - share) * first + share * second
        weighted = (F.log_softmax(first, 1) + math.log(1 - share), F.log_softmax(second, 1) + math.log(share))
        return torch.logaddexp(*weighted)

    def training_loss(
        self, clip: Clips, targets: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of both networks' losses, and the fused logits."""
        clips = self.both(clip)
        self.check_input(clips)
        of_rgb, rgb = self.rgb.training_loss(clips[0], targets, criterion)
        of_flow, flow = self.flow.training_loss(clips[1], targets, criterion)
        return of_rgb + of_flow, self.fuse(rgb, flow)

    def image_names(self) -> dict[str, str]:
        """Return the names in the image network, for both networks."""
        both = (("rgb", self.rgb), ("flow", self.flow))
        return {f"{stream}.{ours}": theirs for stream, net in both for ours, theirs in net.image_names().items()}

    def reset_classifier(self, num_classes: int) -> None:
        """Replace both networks' last layers by fresh ones."""
        self.rgb.reset_classifier(num_classes)
        self.flow.reset_classifier(num_classes)
        self.settings = replace(self.settings, num_classes=num_classes)


def _network(backbone: str, settings: ModelSettings, in_channels: int, hparams: Mapping[str, object]) -> FrameModel:
    checked = model_settings(
        backbone,
        num_classes=settings.num_classes,
        in_channels=in_channels,
        dropout=settings.dropout,
        hparams=hparams,
    )
    model = build_model(_renamed(checked, settings.info))
    if not isinstance(model, FrameModel):
        raise TypeError(f"{backbone} is not an image network: it must be a FrameModel")
    return model


def _renamed(settings: ModelSettings, info: ModelInfo) -> ModelSettings:
    """Return the settings with the name of the fused model, so that messages name the model that was requested."""
    return replace(settings, info=replace(settings.info, name=info.name))
