"""C3D: eight 3x3x3 convolutions and two hidden linear layers.

Source: Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015, figure 3, with the
padding of the last pool of the authors' program. Layers have the authors' names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..card import ModelSettings
from ..video_model import VideoModel, init_convolutions, make_classifier

# The convolutions before each pool, with their channels as multiples of the width.
_STAGES = ((("1a", 1),), (("2a", 2),), (("3a", 4), ("3b", 4)), (("4a", 8), ("4b", 8)), (("5a", 8), ("5b", 8)))
_PLACES = (1, 4, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class C3DConfig:
    """The configuration of the network; its card lists the accepted values."""

    width: int
    hidden_width: int
    """Outputs of both hidden linear layers."""


class C3D(VideoModel):
    """The network; takes any clip of 8 frames and 16 pixels or more.

    It is made for 16 frames of 112 pixels, whose last maps have 4 x 4 places; the maps of other clips are averaged to
    as many.
    """

    classifier_name = "fc8"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = C3DConfig(**arguments)
        channels = settings.in_channels
        for stage in _STAGES:
            for name, multiple in stage:
                self.add_module(f"conv{name}", nn.Conv3d(channels, multiple * config.width, 3, padding=1))
                channels = multiple * config.width
        self.fc6 = nn.Linear(channels * _PLACES[1] * _PLACES[2], config.hidden_width)
        self.fc7 = nn.Linear(config.hidden_width, config.hidden_width)
        self.fc8 = make_classifier(config.hidden_width, settings.num_classes)
        init_convolutions(self)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the convolutions between pools, then each hidden linear layer."""
        stages = (tuple(f"conv{name}" for name, _ in stage) for stage in _STAGES)
        return (*stages, ("fc6",), ("fc7",))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the outputs of the second hidden layer."""
        x = clip
        for number, stage in enumerate(_STAGES):
            for name, _ in stage:
                x = F.relu(self.get_submodule(f"conv{name}")(x))
            if number == 0:
                x = F.max_pool3d(x, (1, 2, 2))
            elif number < len(_STAGES) - 1:
                x = F.max_pool3d(x, 2)
        # At the end of a time axis that two does not divide, the window is cut off.
        x = F.max_pool3d(x, 2, padding=(0, 1, 1), ceil_mode=True)
        x = F.adaptive_avg_pool3d(x, _PLACES).flatten(1)
        x = self.dropout(F.relu(self.fc6(x)))
        return F.relu(self.fc7(x))
