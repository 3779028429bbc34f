"""Cards of the X3D networks."""

from __future__ import annotations

from ..card import FLAG, Clip, HParam, Integer, ModelInfo, SearchChoice

_HPARAMS = (
    HParam(
        name="width",
        default=24,
        accepts=Integer(low=4, high=128),
        doc="Channels of the stem and the first stage; all other widths, except the head's, follow from it.",
    ),
    HParam(
        name="head_width",
        default=2048,
        accepts=Integer(low=16, high=8192),
        doc="Length of the feature vector.",
    ),
    HParam(
        name="zero_init",
        default=True,
        accepts=FLAG,
        doc="Start every residual branch at zero (the scale of its last batch norm).",
    ),
    HParam(
        name="shortcut_norm",
        default=False,
        accepts=FLAG,
        doc="A batch norm in the one shortcut that only strides too, as in PySlowFast's files.",
    ),
    HParam(
        name="project_norm",
        default=False,
        accepts=FLAG,
        doc="A batch norm after the last convolution: BN_LIN5 of PySlowFast.",
    ),
)


def _card(
    name: str, *, frames: int, stride: int, size: int, parameters: int, gflops: float, depth_tenths: int = 22
) -> ModelInfo:
    return ModelInfo(
        name=name,
        family="X3D",
        paper="Feichtenhofer, X3D: Expanding Architectures for Efficient Video Recognition, CVPR 2020",
        clip=Clip(frames=frames, stride=stride, size=size, mean=(0.45,) * 3, std=(0.225,) * 3),
        builder="models.architectures.x3d:X3D",
        hparams=_HPARAMS,
        fixed=(("depth_tenths", depth_tenths),),
        dropout=0.5,
        # Stem and stages halve the image five times.
        min_size=16,
        fully_convolutional=True,
        parameters=parameters,
        gflops=gflops,
        search=(
            SearchChoice(name="clip.frames", values=(4, 8, 16)),
            SearchChoice(name="clip.size", values=(112, 160, 224)),
            SearchChoice(name="model.width", values=(16, 24, 32)),
        ),
    )


CARDS = (
    _card("x3d_xs", frames=4, stride=12, size=160, parameters=3_794_274, gflops=0.605),
    _card("x3d_s", frames=13, stride=6, size=160, parameters=3_794_274, gflops=1.963),
    _card("x3d_m", frames=16, stride=5, size=224, parameters=3_794_274, gflops=4.732),
    _card("x3d_l", frames=16, stride=5, size=312, depth_tenths=50, parameters=6_153_384, gflops=18.368),
)
