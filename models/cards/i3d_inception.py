"""Cards of I3D, the inflated Inception-v1."""

from __future__ import annotations

from ..card import FLAG, Choice, Clip, HParam, Integer, ModelInfo, Number, SearchChoice

_WIDTH = HParam(
    name="width",
    default=64,
    accepts=Integer(low=4, high=256),
    doc="Channels of the stem; every other width follows from it.",
)


# The authors' programs have 0.01 (I3D) and 0.001 (S3D): after a few epochs, such statistics are still those of the
# first batches, and a validation by them is at chance. Training itself does not depend on them.
NORM_MOMENTUM = HParam(
    name="norm_momentum",
    default=0.1,
    accepts=Number(low=0.0001, high=1.0),
    doc="Share of each batch in the running statistics of the batch norms.",
)


CARDS = (
    ModelInfo(
        name="i3d_inception",
        family="I3D",
        paper="Carreira and Zisserman, Quo Vadis, Action Recognition?, CVPR 2017",
        # Values from -1 to 1, which the authors' weights expect.
        clip=Clip(frames=64, stride=1, size=224, mean=(0.5,) * 3, std=(0.5,) * 3),
        builder="models.architectures.i3d_inception:I3DInception",
        hparams=(
            _WIDTH,
            HParam(
                name="stem_temporal_stride",
                default=2,
                accepts=Choice(values=(1, 2)),
                doc="Frames from one position of the first convolution to the next.",
            ),
            NORM_MOMENTUM,
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
    ModelInfo(
        name="i3d_ibm",
        family="I3D",
        paper="Chen et al., Deep Analysis of CNN-based Spatio-temporal Representations for Action Recognition, "
        "CVPR 2021",
        clip=Clip(frames=32, stride=2, size=224, mean=(0.5,) * 3, std=(0.5,) * 3),
        builder="models.architectures.i3d_inception:I3DInception",
        hparams=(
            _WIDTH,
            HParam(
                name="without_t_stride",
                default=False,
                accepts=FLAG,
                doc="Keep all frames; otherwise the last three pools halve them.",
            ),
            HParam(
                name="pooling",
                default="max",
                accepts=Choice(values=("max", "avg")),
                doc="Kind of the pools between stages: maximum or average.",
            ),
            NORM_MOMENTUM,
        ),
        fixed=(("form", "ibm"),),
        dropout=0.5,
        min_size=16,
        parameters=12_697_264,
        gflops=85.646,
        search=(
            SearchChoice(name="clip.frames", values=(16, 32, 64)),
            SearchChoice(name="model.without_t_stride", values=(False, True)),
        ),
    ),
)
