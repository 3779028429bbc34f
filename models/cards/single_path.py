"""Cards of the residual networks of one path: Slow, C2D and the non-local I3D."""

from __future__ import annotations

from ..card import FLAG, Choice, Clip, HParam, Integer, ModelInfo, SearchChoice, Value
from .slowfast import NON_LOCAL

_SLOWFAST = "Feichtenhofer et al., SlowFast Networks for Video Recognition, ICCV 2019"
_NONLOCAL = "Wang et al., Non-local Neural Networks, CVPR 2018"
_CLIP = Clip(frames=8, stride=8, size=224, mean=(0.45,) * 3, std=(0.225,) * 3)
_HPARAMS = (
    HParam(
        name="width",
        default=64,
        accepts=Integer(low=4, high=256),
        doc="Channels of the stem; every other width follows from it.",
    ),
    HParam(
        name="zero_init",
        default=True,
        accepts=FLAG,
        doc="Start every residual branch at zero (the scale of its last batch norm).",
    ),
)
_STEM_STRIDE = HParam(
    name="stem_temporal_stride",
    default=1,
    accepts=Choice(values=(1, 2)),
    doc="Frames from one position of the first convolution to the next.",
)
_STEM_POOL_STRIDE = HParam(
    name="stem_pool_temporal_stride",
    default=1,
    accepts=Choice(values=(1, 2)),
    doc="Frames from one position of the pool after the first convolution to the next.",
)
_SEARCH = (SearchChoice(name="clip.frames", values=(4, 8, 16)),)


def _card(
    name: str,
    family: str,
    paper: str,
    *,
    kind: str,
    parameters: int,
    gflops: float,
    depth: int = 50,
    more: tuple[HParam, ...] = (),
) -> ModelInfo:
    fixed: tuple[tuple[str, Value], ...] = (("kind", kind), ("depth", depth))
    return ModelInfo(
        name=name,
        family=family,
        paper=paper,
        clip=_CLIP,
        builder="models.architectures.single_path:SinglePath",
        hparams=(*_HPARAMS, *NON_LOCAL, *more),
        fixed=fixed,
        dropout=0.5,
        # C2D and I3D pool two frames; the stem of I3D may stride three to two.
        min_frames={"slow": 1, "c2d": 2, "i3d": 3}[kind],
        # Stem and stages halve the image five times.
        min_size=16,
        fully_convolutional=True,
        parameters=parameters,
        gflops=gflops,
        search=_SEARCH,
    )


CARDS = (
    _card("slow_r50", "Slow", _SLOWFAST, kind="slow", parameters=32_454_096, gflops=41.741),
    _card("c2d_r50", "C2D", _NONLOCAL, kind="c2d", parameters=24_327_632, gflops=19.493),
    _card(
        "i3d_r50",
        "I3D",
        _NONLOCAL,
        kind="i3d",
        more=(_STEM_STRIDE, _STEM_POOL_STRIDE),
        parameters=28_043_472,
        gflops=28.408,
    ),
    _card(
        "i3d_r101",
        "I3D",
        _NONLOCAL,
        kind="i3d",
        depth=101,
        more=(_STEM_STRIDE, _STEM_POOL_STRIDE),
        parameters=51_754_192,
        gflops=46.956,
    ),
)
