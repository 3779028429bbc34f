"""Video classifiers of Hugging Face's `transformers`, an optional package, built from sizes and without a network.

Sources: Arnab et al., ViViT: A Video Vision Transformer, ICCV 2021; Assran et al., V-JEPA 2: Self-Supervised Video
Models Enable Understanding, Prediction and Planning, 2025. Names of parameters are the library's, below ``net.``.
VideoMAE and TimeSformer are models of their own here, which read the library's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..card import ModelSettings
from ..errors import InvalidClipError, InvalidModelError
from ..video_model import VideoModel, make_classifier

# The library's names of the sizes, and of the clips' argument, that differ among its networks.
_NAMES: dict[str, dict[str, str]] = {
    "vivit": {"frames": "num_frames", "size": "image_size", "channels": "num_channels"},
    "vjepa2": {"frames": "frames_per_clip", "size": "crop_size", "channels": "in_chans"},
}
# The predictor of a pre-training, which a classifier does not run.
_UNUSED = {"vjepa2": "vjepa2.predictor"}


@dataclass(frozen=True, kw_only=True, slots=True)
class HFVideoConfig:
    """The configuration of the network; its card lists the accepted values."""

    architecture: str
    depth: int
    width: int
    head_width: int
    """Channels of an attention head; divides `width`."""
    frames: int
    size: int
    """Frames and pixels a side of the only clips that the network takes."""


class HFVideo(VideoModel):
    """The network; takes clips of the frames and pixels of its configuration, and no others."""

    classifier_name = "head"
    table_names = ("cls_token", "position_embeddings")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = HFVideoConfig(**arguments)
        self.net = _network(settings.info.name, config, settings.in_channels)
        unused = _UNUSED.get(config.architecture)
        if unused is not None:
            self.net.set_submodule(unused, nn.Identity())
        self.net.set_submodule("classifier", nn.Identity())
        self.head = make_classifier(config.width, settings.num_classes)

    @property
    def optional_names(self) -> tuple[str, ...]:
        """Beginnings of names in the library's files that the model does not need."""
        unused = _UNUSED.get(self.config.architecture)
        return ("classifier.", *((f"{unused}.",) if unused is not None else ()))

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the embedding of patches, then each block; later layers belong to the head."""
        row = next(name for name, module in self.net.named_modules() if isinstance(module, nn.ModuleList))
        embeddings = next(name for name, _ in self.net.named_modules() if name.endswith("embeddings"))
        blocks = ((f"net.{row}.{number}",) for number in range(self.config.depth))
        return ((f"net.{embeddings}",), *blocks)

    def check_input(self, clip: Tensor) -> None:
        """Raise InvalidClipError unless the clip has the configuration's frames and pixels."""
        super().check_input(clip)
        wanted = (self.config.frames, self.config.size, self.config.size)
        if tuple(clip.shape[2:]) != wanted:
            raise InvalidClipError(
                f"{self.name} takes clips of {self.config.frames} frames and {self.config.size} x {self.config.size} "
                f"pixels with these options, not {tuple(clip.shape[2:])}: set model.frames and model.size"
            )

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), what the library's classifier sees."""
        features: Tensor = self.net(clip.transpose(1, 2)).logits
        return features

    def image_names(self) -> dict[str, str]:
        """Return the library's names."""
        return {f"net.{name}": name for name in self.net.state_dict()}


def _network(name: str, config: HFVideoConfig, channels: int) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModelForVideoClassification
    except ImportError:
        raise InvalidModelError(f"{name} needs transformers: pip install 'video-hpo[transformers]'") from None
    names = _NAMES[config.architecture]
    sizes: dict[str, Any] = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.width // config.head_width,
        names["frames"]: config.frames,
        names["size"]: config.size,
        names["channels"]: channels,
    }
    if config.architecture != "vjepa2":
        sizes["intermediate_size"] = 4 * config.width
    network: nn.Module = AutoModelForVideoClassification.from_config(
        AutoConfig.for_model(config.architecture, num_labels=1, **sizes)
    )
    return network
