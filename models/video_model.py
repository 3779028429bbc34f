"""The base class of all models: their inputs, outputs, classifier and parameter groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from .card import ModelInfo, ModelSettings
from .catalogue import check_clip_of
from .errors import InvalidClipError, InvalidModelError


class VideoModel(nn.Module, ABC):
    """A network from clips (N, C, T, H, W) to logits (N, num_classes).

    A subclass defines :meth:`forward_features` and a linear classifier under the attribute
    `classifier_name` (dotted if it is inside another module). `settings` is the checked
    configuration that it was built from.
    """

    classifier_name: ClassVar[str] = "head"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
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

    def param_groups(
        self,
        *,
        weight_decay: float,
        head_lr_mult: float = 1.0,
        bias_lr_mult: float = 1.0,
        lr: float | None = None,
    ) -> list[dict[str, Any]]:
        """Return optimizer groups that hold every parameter exactly once.

        Weights decay by `weight_decay`; norms and biases (all parameters with one axis) do not. Each group has
        `params`, `name`, `weight_decay` and `lr_mult`: `head_lr_mult` for the classifiers and 1 for the body, times
        `bias_lr_mult` for biases of convolutions and linear layers (2 in Caffe; unless it is 1, they form separate
        groups). With `lr`, a group also has its multiplied `lr`; without, the caller must apply the multiplier. Empty
        groups are left out.
        """
        head = {id(p) for name in self.classifier_names for p in self.get_submodule(name).parameters()}
        biases = self._biases() if bias_lr_mult != 1 else set()
        kinds = (("decay", weight_decay, 1.0), ("no_decay", 0.0, 1.0), ("bias", 0.0, bias_lr_mult))
        groups: dict[str, dict[str, Any]] = {}
        for part, part_mult in (("body", 1.0), ("head", head_lr_mult)):
            for kind, decay, kind_mult in kinds:
                lr_mult = part_mult * kind_mult
                group = {"params": [], "weight_decay": decay, "lr_mult": lr_mult}
                groups[f"{part}.{kind}"] = group if lr is None else group | {"lr": lr * lr_mult}
        for parameter in self.parameters():
            part = "head" if id(parameter) in head else "body"
            kind = "decay" if parameter.ndim > 1 else "bias" if id(parameter) in biases else "no_decay"
            groups[f"{part}.{kind}"]["params"].append(parameter)
        return [{"name": name, **group} for name, group in groups.items() if group["params"]]

    def _biases(self) -> set[int]:
        layers = (nn.Conv2d, nn.Conv3d, nn.Linear)
        return {id(module.bias) for module in self.modules() if isinstance(module, layers) and module.bias is not None}


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
