"""Any classifier of images of torchvision or timm over the frames of a clip, with TSM's or TAM's module in its blocks.

Sources: Wang et al., Temporal Segment Networks, ECCV 2016; Lin et al., TSM, ICCV 2019, section 3 (the shift inside the
residual branch); Fan et al., More Is Less, NeurIPS 2019, section 3.2 (temporal aggregation).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..card import ModelSettings
from ..errors import InvalidModelError, suggest
from ..layers.temporal_modules import TemporalAggregation, TemporalModule, TemporalShift
from ..video_model import make_classifier
from .frame_model import FrameModel

# Residual blocks of both libraries by the names of their classes, and where a branch begins, by the first that exists.
_BLOCKS = frozenset(
    {
        "BasicBlock",
        "Bottleneck",
        "CNBlock",
        "ConvNeXtBlock",
        "DepthwiseSeparableConv",
        "EdgeResidual",
        "FusedMBConv",
        "InvertedResidual",
        "MBConv",
        "ResBottleneckBlock",
    }
)
_BRANCHES = ("conv1", "conv_pw", "conv_exp", "conv_dw", "block", "f", "conv")
# Children of a network that are rows of layers.
_ROWS = ("features", "stages", "blocks", "layers")
# Networks with auxiliary classifiers, which are models of their own here.
_WITH_AUXILIARY = frozenset({"googlenet", "inception_v3"})


@dataclass(slots=True)
class _Clock:
    """The number of images in each clip of the present batch, which modules inside a network of images cannot see."""

    length: int = 1


@dataclass(slots=True)
class _BeforeBranch:
    """A forward hook that combines the images of each clip before a residual branch sees them."""

    module: TemporalModule
    clock: _Clock

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self.module(given[0], self.clock.length), *given[1:])


class ImageBackbone(FrameModel):
    """A network of images, `net`, whose classifier is `fc`; takes any number of frames."""

    temporal_names = ("temporal.",)

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.backbone = str(settings.hparams["backbone"])
        self.net, features, self.their_classifier = self.make_network(self.backbone, self.image_channels)
        self._clock = _Clock()
        self.temporal = nn.ModuleList()
        self._branches: list[str] = []
        self._add_temporal(str(settings.hparams["temporal_module"]), int(settings.hparams["shift_divisor"]))
        self.fc = make_classifier(features, settings.num_classes)

    @abstractmethod
    def make_network(self, backbone: str, channels: int) -> tuple[nn.Module, int, str]:
        """Return a network that turns images into vectors, their length, and the name of its published classifier.

        Raises InvalidModelError if the library has no such network.
        """

    @property
    def optional_names(self) -> tuple[str, ...]:  # type: ignore[override]  # it depends on the network
        """Beginnings of names in published files that the model does not need: those of the classifier."""
        return (f"{self.their_classifier}.",)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the children of the network, and each module of those that are rows, in their order."""
        direct = tuple(f"net.{name}" for name, _ in self.net.named_parameters(recurse=False))
        found: list[tuple[str, ...]] = []
        for name, child in self.net.named_children():
            parts = [f"{name}.{part}" for part, _ in child.named_children()] if name in _ROWS else [name]
            found += [(f"net.{part}",) for part in parts if any(True for _ in self._part(part).parameters())]
        found[0] = (*direct, *found[0])
        return tuple((*layer, *self._temporal_in(layer)) for layer in found)

    def image_names(self) -> dict[str, str]:
        """Return the library's names."""
        return {f"net.{name}": name for name in self.net.state_dict()}

    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return the network's vectors of the images."""
        self._clock.length = length
        vectors: Tensor = self.net(images)
        return vectors

    def _part(self, name: str) -> nn.Module:
        return self.net.get_submodule(name)

    def _temporal_in(self, layer: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the temporal modules before branches of a layer."""
        inside = tuple(f"{name}." for name in layer)
        return tuple(f"temporal.{i}" for i, name in enumerate(self._branches) if f"net.{name}.".startswith(inside))

    def _add_temporal(self, kind: str, divisor: int) -> None:
        if kind == "none":
            return
        for name, module in list(self.net.named_modules()):
            branch = next((part for part in _BRANCHES if hasattr(module, part)), None)
            if type(module).__name__ not in _BLOCKS or branch is None:
                continue
            first = module.get_submodule(branch)
            channels = next(part.in_channels for part in first.modules() if isinstance(part, nn.Conv2d))
            combine = TemporalShift(divisor) if kind == "shift" else TemporalAggregation(channels)
            first.register_forward_pre_hook(_BeforeBranch(combine, self._clock))
            self.temporal.append(combine)
            self._branches.append(f"{name}.{branch}")
        if not self._branches:
            raise InvalidModelError(
                f"{self.name}: {self.backbone} has no residual blocks of convolutions that temporal_module = {kind} "
                "could be put into; choose none"
            )


class TorchvisionFrames(ImageBackbone):
    """A classifier of torchvision."""

    def make_network(self, backbone: str, channels: int) -> tuple[nn.Module, int, str]:
        """Return a network without its classifier and the dropout before it."""
        import torchvision

        known = set(torchvision.models.list_models(module=torchvision.models)) - _WITH_AUXILIARY
        if backbone not in known:
            raise InvalidModelError(f"torchvision has no classifier {backbone!r}{suggest(backbone, known)}")
        net: nn.Module = torchvision.models.get_model(backbone, weights=None)
        name, last = [(name, module) for name, module in net.named_modules() if _holds_parameters(module)][-1]
        if not isinstance(last, nn.Linear):
            raise InvalidModelError(f"{self.name}: the classifier of {backbone} is not a linear layer")
        net.set_submodule(name, nn.Identity())
        for sibling in net.get_submodule(name.rpartition(".")[0]).children():
            if isinstance(sibling, nn.Dropout):
                sibling.p = 0.0
        if channels != 3:
            _replace_first_convolution(net, channels)
        return net, last.in_features, name


class TimmFrames(ImageBackbone):
    """A classifier of timm, which is an optional package."""

    def make_network(self, backbone: str, channels: int) -> tuple[nn.Module, int, str]:
        """Return a network with timm's own pooling and without its classifier."""
        try:
            import timm
        except ImportError:
            raise InvalidModelError(f"{self.name} needs timm: pip install 'video-hpo[timm]'") from None
        if not timm.is_model(backbone):
            raise InvalidModelError(f"timm has no model {backbone!r}{suggest(backbone, timm.list_models())}")
        options: dict[str, Any] = {"in_chans": channels, "num_classes": 0, "pretrained": False}
        try:
            # Transformers then take images of any size.
            net = timm.create_model(backbone, dynamic_img_size=True, **options)
        except TypeError:
            net = timm.create_model(backbone, **options)
        classifier = str(timm.get_pretrained_cfg_value(backbone, "classifier") or "head")
        features = getattr(net, "head_hidden_size", None) or net.num_features
        return net, int(features), classifier


def _holds_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _replace_first_convolution(net: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels."""
    name, first = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    fresh = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # a pair, as it was given
        first.stride,  # type: ignore[arg-type]  # a pair, as it was given
        first.padding,  # type: ignore[arg-type]  # a pair, as it was given
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    net.set_submodule(name, fresh)
