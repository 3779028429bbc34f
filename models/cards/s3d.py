"""Cards of S3D and S3D-G."""

from __future__ import annotations

from ..card import FLAG, Choice, Clip, HParam, Integer, ModelInfo, SearchChoice
from .i3d_inception import NORM_MOMENTUM

_XIE = "Xie et al., Rethinking Spatiotemporal Feature Learning, ECCV 2018"
_CHEN = "Chen et al., Deep Analysis of CNN-based Spatio-temporal Representations for Action Recognition, CVPR 2021"
_KINETICS = Clip(
    frames=64,
    stride=1,
    size=224,
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
)
_IBM = Clip(frames=32, stride=2, size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
_POOLING = HParam(
    name="pooling",
    default="max",
    accepts=Choice(values=("max", "avg")),
    doc="Kind of the pools between stages: maximum or average.",
)
_SEARCH = (
    SearchChoice(name="clip.frames", values=(16, 32, 64)),
    SearchChoice(name="model.gating", values=("none", "temporal")),
    SearchChoice(name="model.without_t_stride", values=(False, True)),
)


def _hparams(gating: str) -> tuple[HParam, ...]:
    return (
        HParam(
            name="width",
            default=64,
            accepts=Integer(low=4, high=256),
            doc="Channels of the stem; every other width follows from it.",
        ),
        HParam(
            name="gating",
            default=gating,
            accepts=Choice(values=("none", "temporal", "branches")),
            doc="Self-gating: nowhere, after every temporal convolution, or after every branch.",
        ),
        HParam(
            name="dw_t_conv",
            default=False,
            accepts=FLAG,
            doc="Temporal convolutions treat each channel separately (depthwise).",
        ),
        HParam(
            name="without_t_stride",
            default=False,
            accepts=FLAG,
            doc="Keep all frames; otherwise stem and pools halve them.",
        ),
    )


def _card(
    name: str,
    family: str,
    paper: str,
    clip: Clip,
    *,
    parameters: int,
    gflops: float,
    layout: str = "torchvision",
    gating: str = "none",
) -> ModelInfo:
    return ModelInfo(
        name=name,
        family=family,
        paper=paper,
        clip=clip,
        builder="models.architectures.s3d:S3D",
        hparams=(
            *_hparams(gating),
            NORM_MOMENTUM,
            *((_POOLING,) if layout == "ibm" else ()),
        ),
        fixed=(("layout", layout),),
        dropout=0.2,
        # The last pool takes 2x2x2 values, after time was halved twice and the image four times.
        min_frames=5,
        min_size=17,
        parameters=parameters,
        gflops=gflops,
        search=_SEARCH,
    )


CARDS = (
    _card("s3d", "S3D", _XIE, _KINETICS, parameters=8_320_048, gflops=71.914),
    _card("s3d_g", "S3D-G", _XIE, _KINETICS, gating="temporal", parameters=9_085_744, gflops=71.915),
    _card("s3d_ibm", "S3D", _CHEN, _IBM, layout="ibm", parameters=8_313_328, gflops=49.059),
)
