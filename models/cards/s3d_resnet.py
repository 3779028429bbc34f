"""Cards of S3D-ResNet."""

from __future__ import annotations

from ..card import FLAG, Clip, HParam, Integer, ModelInfo, SearchChoice

_HPARAMS = (
    HParam(
        name="width",
        default=64,
        accepts=Integer(low=4, high=256),
        doc="Channels of the stem; every other width follows from it.",
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
        doc="Keep all frames; otherwise stages two to four halve them.",
    ),
    HParam(
        name="zero_init",
        default=False,
        accepts=FLAG,
        doc="Start every residual branch at zero (the scale of its last batch norm).",
    ),
)


def _card(name: str, *, depth: int, parameters: int, gflops: float) -> ModelInfo:
    return ModelInfo(
        name=name,
        family="S3D-ResNet",
        paper="Chen et al., Deep Analysis of CNN-based Spatio-temporal Representations for Action Recognition, "
        "CVPR 2021",
        # Statistics of the image networks that it is initialised from.
        clip=Clip(frames=32, stride=2, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        builder="models.architectures.s3d_resnet:S3DResNet",
        hparams=_HPARAMS,
        fixed=(("depth", depth),),
        dropout=0.5,
        # Stem, pool and stages halve the image five times.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=(
            SearchChoice(name="clip.frames", values=(8, 16, 32)),
            SearchChoice(name="model.dw_t_conv", values=(False, True)),
            SearchChoice(name="model.without_t_stride", values=(False, True)),
        ),
    )


CARDS = (
    _card("s3d_resnet18", depth=18, parameters=15_586_128, gflops=48.503),
    _card("s3d_resnet34", depth=34, parameters=29_068_624, gflops=79.331),
    _card("s3d_resnet50", depth=50, parameters=28_126_416, gflops=78.690),
    _card("s3d_resnet101", depth=101, parameters=50_469_584, gflops=113.628),
)
