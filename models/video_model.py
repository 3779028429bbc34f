"""The base class of all models: their inputs, outputs, classifier and parameter groups."""

from __future__ import annotations

import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .card import ModelInfo, ModelSettings
from .catalogue import check_clip_of
from .errors import InvalidClipError, InvalidModelError
from .weights_report import WeightsReport

_ROWS = ("stages", "blocks", "layers")
"""Names of children that are rows of layers."""


class VideoModel(nn.Module, ABC):
    """A network from clips (N, C, T, H, W) to logits (N, num_classes).

    A subclass defines :meth:`forward_features` and a linear classifier under the attribute
    `classifier_name` (dotted if it is inside another module). `settings` is the checked
    configuration that it was built from.
    """

    classifier_name: ClassVar[str] = "head"
    unused_image_names: ClassVar[tuple[str, ...]] = ()
    """Ends of the names of tensors in the image network's files that this model has no use for."""
    table_names: ClassVar[tuple[str, ...]] = ()
    """Parts of the names of parameters that are looked up by position or stand for no input, such as tables of relative
    positions and class tokens. Recipes for transformers keep weight decay away from them."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.weights_reports: dict[str | None, WeightsReport] = {}
        """What was loaded from files, by the part of the model that got it; None for the whole model."""
        self.dropout = nn.Dropout(settings.dropout)

    @property
    def name(self) -> str:
        """The name of the model in the catalogue."""
        return self.info.name

    @property
    def info(self) -> ModelInfo:
        """The model's card."""
        return self.settings.info

    @property
    def num_classes(self) -> int:
        """Number of classes, which is the length of the logits."""
        return self.settings.num_classes

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Dotted names of all linear layers that output classes; the one of the logits first."""
        return (self.classifier_name,)

    @property
    def input_parts(self) -> dict[str, str]:
        """Return the submodule of each input, by the names of the card, in a model of several streams; else nothing."""
        return {}

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Names of the modules and parameters of each layer of the backbone, in the order of computation.

        A layer is what is frozen as a whole and what `layer_decay` counts: a stage of a convolutional network, a block
        of a transformer. The first is the stem. What stands in none, such as a last norm, belongs to the head. By
        default each direct child but the classifiers is a layer, and each module of a child called ``stages``,
        ``blocks`` or ``layers``.
        """
        heads = {name.partition(".")[0] for name in self.classifier_names}
        found: list[tuple[str, ...]] = []
        for name, child in self.named_children():
            parts = child.named_children() if name in _ROWS else ()
            if name not in heads and any(True for _ in child.parameters()):
                found += [(f"{name}.{part}",) for part, _ in parts] or [(name,)]
        return tuple(found)

    @property
    def num_layers(self) -> int:
        """Number of layers of the backbone, which is the index of the head."""
        return len(self.layer_names)

    def layer_index(self, name: str) -> int:
        """Return the layer of a parameter or module: 0 for the stem, `num_layers` for what belongs to the head."""
        return _index_in(self.layer_names, name)

    @property
    def num_features(self) -> int:
        """Length of a clip's feature vector."""
        return self.get_classifier().in_features

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits (N, num_classes), before any softmax, of clips (N, C, T, H, W).

        Raises InvalidClipError for a shape that the model cannot take.
        """
        self.check_input(clip)
        logits: Tensor = self.get_classifier()(self.dropout(self.forward_features(clip)))
        return logits

    def training_loss(
        self, clip: Tensor, targets: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the loss to descend, and the logits (N, num_classes).

        `criterion` takes logits and `targets`. A model with several classifiers returns a weighted sum of their
        losses. Wrappers such as DDP only call `forward`: wrap a module that calls this method there.
        """
        logits = self(clip)
        return criterion(logits, targets), logits

    @abstractmethod
    def forward_features(self, clip: Tensor) -> Tensor:
        """Return one vector per clip, (N, num_features), pooled over time and space."""

    def score_positions(self, training_size: int) -> None:
        """In evaluation, score a larger clip at each position that a clip of `training_size` pixels a side has in it.

        Raises InvalidModelError for a model that is not published so; see :class:`FullyConvolutionalModel`.
        """
        raise InvalidModelError(
            f"{self.name} pools its whole maps: a classifier at each position (test_pooling: fully_convolutional) is "
            "published for SlowFast, Slow, C2D, I3D of ResNets and X3D alone"
        )

    def check_input(self, clip: Tensor) -> None:
        """Raise InvalidClipError unless `clip` is a batch that the model can take."""
        shape = tuple(clip.shape)
        if len(shape) != 5 or shape[1] != self.settings.in_channels:
            raise InvalidClipError(f"{self.name} takes clips (N, {self.settings.in_channels}, T, H, W), not {shape}")
        size = min(shape[3], shape[4])
        check_clip_of(self.info, self.settings.hparams, frames=shape[2], size=size)

    def get_classifier(self) -> nn.Linear:
        """Return the last layer."""
        classifier = self.get_submodule(self.classifier_name)
        if not isinstance(classifier, nn.Linear):
            raise TypeError(f"{type(self).__name__}.{self.classifier_name} is not a linear layer")
        return classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for `num_classes`; the body does not change."""
        if num_classes < 1:
            raise InvalidModelError(f"num_classes must be at least 1, not {num_classes}")
        for name in self.classifier_names:
            old = self.get_submodule(name)
            if not isinstance(old, nn.Linear):
                raise TypeError(f"{type(self).__name__}.{name} is not a linear layer")
            fresh = self.make_classifier(old.in_features, num_classes, bias=old.bias is not None)
            self.set_submodule(name, fresh.to(old.weight.device, old.weight.dtype))
        self.settings = replace(self.settings, num_classes=num_classes)

    @staticmethod
    def make_classifier(features: int, classes: int, *, bias: bool = True) -> nn.Linear:
        """Return a new last layer."""
        return make_classifier(features, classes, bias=bias)

    def image_names(self) -> dict[str, str]:
        """Return the names in the image network that the model is inflated from, by the names of this state dict.

        It is empty if there is no such network; parameters without a name there are not loaded. See
        :func:`models.load_inflated`.
        """
        return {}

    def from_image(self, name: str, tensor: Tensor) -> Tensor:
        """Return the image network's tensor for the parameter `name` of this model, before kernels are inflated."""
        return tensor

    def param_groups(
        self,
        *,
        weight_decay: float,
        head_lr_mult: float = 1.0,
        bias_lr_mult: float = 1.0,
        layer_decay: float = 1.0,
        decay_tables: bool = True,
        by_layer: bool = False,
        lr: float | None = None,
    ) -> list[dict[str, Any]]:
        """Return optimizer groups that hold every parameter exactly once.

        Weights decay by `weight_decay`; norms and biases (all parameters with one axis) do not, nor do those that
        `table_names` names unless `decay_tables`. Each group has `params`, `name`, `weight_decay` and `lr_mult`:
        `head_lr_mult` for the classifiers and 1 for the body, times `bias_lr_mult` for biases of convolutions and
        linear layers (2 in Caffe; unless it is 1, they form separate groups). With a `layer_decay` other than 1, the
        body's are multiplied by it once for each layer between them and the head (`layer_index`; Bao et al., BEiT,
        ICLR 2022, appendix H), and each layer has its own groups, as with `by_layer`; without, the whole body shares
        its groups. With `lr`, a group also has its multiplied `lr`; without, the caller must apply the multiplier.
        """
        head = {id(p) for name in self.classifier_names for p in self.get_submodule(name).parameters()}
        biases = self._biases() if bias_lr_mult != 1 else set()
        layers = self.layer_names if by_layer or layer_decay != 1 else ()
        body = {f"layer{i}": layer_decay ** (len(layers) - i) for i in range(len(layers))} | {"body": 1.0}
        kinds = (("decay", weight_decay, 1.0), ("no_decay", 0.0, 1.0), ("bias", 0.0, bias_lr_mult))
        groups: dict[str, dict[str, Any]] = {}
        for part, part_mult in (body | {"head": head_lr_mult}).items():
            for kind, decay, kind_mult in kinds:
                lr_mult = part_mult * kind_mult
                group = {"params": [], "weight_decay": decay, "lr_mult": lr_mult}
                groups[f"{part}.{kind}"] = group if lr is None else group | {"lr": lr * lr_mult}
        for name, parameter in self.named_parameters():
            index = _index_in(layers, name)
            part = "head" if id(parameter) in head else f"layer{index}" if index < len(layers) else "body"
            is_table = not decay_tables and any(table in name for table in self.table_names)
            decays = parameter.ndim > 1 and not is_table
            kind = "decay" if decays else "bias" if id(parameter) in biases else "no_decay"
            groups[f"{part}.{kind}"]["params"].append(parameter)
        return [{"name": name, **group} for name, group in groups.items() if group["params"]]

    def _biases(self) -> set[int]:
        layers = (nn.Conv2d, nn.Conv3d, nn.Linear)
        return {id(module.bias) for module in self.modules() if isinstance(module, layers) and module.bias is not None}


class FullyConvolutionalModel(VideoModel):
    """A model of convolutions whose classifier can be applied at each position of its maps.

    Training and, by default, evaluation average whole maps. After :meth:`score_positions`, evaluation averages
    windows as large as the maps of a training clip, applies the classifier to each, and averages their softmax
    outputs. Source: Wang et al., Non-local Neural Networks, CVPR 2018, section 5.1; `ResNetBasicHead` and `X3DHead` of
    PySlowFast.
    """

    total_stride: ClassVar[int] = 32
    """Pixels from one position of the last maps to the next."""
    window: int | None = None
    """Side of the windows, in positions of the last maps; None: the whole maps."""

    @abstractmethod
    def forward_maps(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Return the last maps (N, C, T, H, W) of each path, of equal H and W, whose averages make the features."""

    def project_pooled(self, pooled: Tensor) -> Tensor:
        """Return features (N, num_features, 1, H, W) of averages (N, C, 1, H, W), each position by itself."""
        return pooled

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), from the averages of the last maps over time and space, path by path."""
        pooled = [maps.mean((2, 3, 4), keepdim=True) for maps in self.forward_maps(clip)]
        return self.project_pooled(torch.cat(pooled, dim=1)).flatten(1)

    def score_positions(self, training_size: int) -> None:
        """See :meth:`VideoModel.score_positions`."""
        self.window = math.ceil(training_size / self.total_stride)

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits (N, num_classes); where positions are scored, logarithms of their mean probabilities."""
        if self.window is None or self.training:
            return super().forward(clip)
        self.check_input(clip)
        pooled = [_windows(maps, self.window) for maps in self.forward_maps(clip)]
        features = self.project_pooled(torch.cat(pooled, dim=1))
        logits: Tensor = self.get_classifier()(features.flatten(2).transpose(1, 2))
        return logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])


def _windows(maps: Tensor, side: int) -> Tensor:
    """Return averages (N, C, 1, H', W') of maps (N, C, T, H, W) over all frames and squares of `side` positions."""
    frames, height, width = maps.shape[2:]
    return F.avg_pool3d(maps, (frames, min(side, height), min(side, width)), stride=1)


def _index_in(layers: tuple[tuple[str, ...], ...], name: str) -> int:
    """Return which of the layers a name belongs to; their number if it belongs to none."""
    for index, parts in enumerate(layers):
        if any(name == part or name.startswith(f"{part}.") for part in parts):
            return index
    return len(layers)


def build_model(settings: ModelSettings) -> VideoModel:
    """Return a new model with settings that are already checked, in training mode."""
    model = pkgutil.resolve_name(settings.info.builder)(settings)
    if not isinstance(model, VideoModel):
        raise TypeError(f"{settings.info.builder} made a {type(model).__name__}, not a VideoModel")
    return model.train()


def make_classifier(features: int, classes: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer with weights from N(0, 0.01) and a bias of zero."""
    classifier = nn.Linear(features, classes, bias=bias)
    nn.init.normal_(classifier.weight, std=0.01)
    if bias:
        nn.init.zeros_(classifier.bias)
    return classifier


def init_convolutions(model: nn.Module) -> None:
    """Draw the weights of all convolutions from He's normal distribution, by fan-out; norms stay the identity.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015, section 2.2 (backward case).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
