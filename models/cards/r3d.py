"""Cards of the 3-D residual networks: R3D, MC3 and R(2+1)D."""

from __future__ import annotations

from models.card import FLAG, Choice, Clip, HParam, Integer, ModelInfo

_PAPER = "Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018"
# Statistics of the published Kinetics weights.
_CLIP = Clip(
    frames=16,
    stride=2,
    size=112,
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
)
_WIDTH = HParam(
    name="width",
    default=64,
    accepts=Integer(low=4, high=256),
    doc="Channels of the stem; every other width follows from it.",
)
_ZERO_INIT = HParam(
    name="zero_init",
    default=False,
    accepts=FLAG,
    doc="Start every residual branch at zero (the scale of its last batch norm).",
)
_MIDPLANES = HParam(
    name="midplanes",
    default="torchvision",
    accepts=Choice(values=("torchvision", "paper")),
    doc="Channels between the spatial and the temporal half of a convolution: computed once per "
    "block, as torchvision's weights have it, or per convolution, as the paper says.",
)


def _card(name: str, family: str, *, convolution: str, more: tuple[HParam, ...] = ()) -> ModelInfo:
    return ModelInfo(
        name=name,
        family=family,
        paper=_PAPER,
        clip=_CLIP,
        builder="models.r3d:R3D",
        hparams=(_WIDTH, _ZERO_INIT, *more),
        fixed=(("convolution", convolution), ("depth", 18)),
        dropout=0.0,
        # Stem and stages halve the image four times.
        min_size=16,
    )


CARDS = (
    _card("r3d_18", "R3D", convolution="r3d"),
    _card("mc3_18", "MC3", convolution="mc3"),
    _card("r2plus1d_18", "R(2+1)D", convolution="r2plus1d", more=(_MIDPLANES,)),
)
