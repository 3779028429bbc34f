"""Card of I3D, the inflated Inception-v1."""

from __future__ import annotations

from ..card import Choice, Clip, HParam, Integer, ModelInfo, SearchChoice

CARDS = (
    ModelInfo(
        name="i3d_inception",
        family="I3D",
        paper="Carreira and Zisserman, Quo Vadis, Action Recognition?, CVPR 2017",
        # Values from -1 to 1, which the authors' weights expect.
        clip=Clip(frames=64, stride=1, size=224, mean=(0.5,) * 3, std=(0.5,) * 3),
        builder="models.architectures.i3d_inception:I3DInception",
        hparams=(
            HParam(
                name="width",
                default=64,
                accepts=Integer(low=4, high=256),
                doc="Channels of the stem; every other width follows from it.",
            ),
            HParam(
                name="stem_temporal_stride",
                default=2,
                accepts=Choice(values=(1, 2)),
                doc="Frames from one position of the first convolution to the next.",
            ),
        ),
        dropout=0.5,
        # The image is halved five times; smaller ones would run, but their last maps are mostly padding.
        min_size=16,
        parameters=12_697_264,
        gflops=111.151,
        search=(
            SearchChoice(name="clip.frames", values=(16, 32, 64)),
            SearchChoice(name="model.stem_temporal_stride", values=(1, 2)),
        ),
    ),
)
