"""Residual networks of one path, with temporal kernels in their blocks' first convolutions: Slow, C2D and I3D.

Sources: Feichtenhofer et al., SlowFast Networks for Video Recognition, ICCV 2019, table 1 (the slow path alone);
Wang et al., Non-local Neural Networks, CVPR 2018, section 4 and table 1 (C2D, and I3D of 3x1x1 kernels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..card import ModelSettings
from ..video_model import FullyConvolutionalModel, init_convolutions, make_classifier
from .slowfast import NON_LOCAL_AFTER, Pathway, ResidualBlock, TemporalKernels

_TEMPORAL_KERNELS: dict[str, TemporalKernels] = {
    "slow": ((1,), (1,), (3,), (3,)),
    "c2d": ((1,), (1,), (1,), (1,)),
    "i3d": ((3,), (3, 1), (3, 1), (1, 3)),
}
_STEM_KERNELS = {"slow": 1, "c2d": 1, "i3d": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class SinglePathConfig:
    """The configuration of one of these networks; its card lists the accepted values."""

    kind: str
    """``"slow"``, ``"c2d"`` or ``"i3d"``: determines which kernels cover more than one frame."""
    depth: int
    width: int
    zero_init: bool
    stem_temporal_stride: int = 1
    stem_pool_temporal_stride: int = 1
    """Frames from one position of the pool after the stem to the next; 2 in MMAction2's I3D."""
    non_local: str = "none"
    """Kind of the non-local blocks; see :func:`models.layers.non_local.attend`."""
    non_local_pool: str = "before"


class SinglePath(FullyConvolutionalModel):
    """A stem, four stages, and, in C2D and I3D, a pool over two frames after the first stage.

    It takes any number of frames, but at least two with the pool.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = SinglePathConfig(**arguments)
        self.path = Pathway(
            settings.in_channels,
            config.width,
            depth=config.depth,
            stem_kernel=_STEM_KERNELS[config.kind],
            stem_temporal_stride=config.stem_temporal_stride,
            stem_pool_temporal_stride=config.stem_pool_temporal_stride,
            temporal_kernels=_TEMPORAL_KERNELS[config.kind],
        )
        if config.non_local != "none":
            self.path.add_non_local(config.non_local, config.non_local_pool, after=NON_LOCAL_AFTER)
        self.pool = nn.Identity() if config.kind == "slow" else nn.MaxPool3d((2, 1, 1))
        self.head = make_classifier(self.path.out_channels, settings.num_classes)
        init_convolutions(self)
        if config.zero_init:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    module.zero_init()

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the stem and the stages."""
        return (("path.stem",), *((f"path.stages.{index}",) for index in range(len(self.path.stages))))

    def forward_maps(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Return the last maps."""
        first, *later = self.path.stages
        x: Tensor = first(self.path.stem(clip))
        if x.shape[2] > 1:  # A single position stays.
            x = self.pool(x)
        for stage in later:
            x = stage(x)
        return (x,)

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's ResNet of the same depth."""
        return self.path.image_names("path.")
