"""Cards of the 3-D residual networks: R3D, MC3 and R(2+1)D."""

from __future__ import annotations

from ..card import FLAG, Choice, Clip, HParam, Integer, ModelInfo, SearchChoice, Value

_TRAN = "Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018"
_HARA = "Hara et al., Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?, CVPR 2018"
# Statistics of the published Kinetics weights.
_KINETICS = Clip(
    frames=16,
    stride=2,
    size=112,
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
)
_KINETICS_32 = Clip(frames=32, stride=2, size=112, mean=_KINETICS.mean, std=_KINETICS.std)
# The networks of Hara et al. in their authors' program, with its statistics of Kinetics.
_HARA_CLIP = Clip(frames=16, stride=1, size=112, mean=(0.4345, 0.4051, 0.3775), std=(0.2768, 0.2713, 0.2737))
# Statistics of the image networks that the bottlenecks are initialised from.
_IMAGENET = Clip(frames=32, stride=2, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
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
_WITHOUT_T_STRIDE = HParam(
    name="without_t_stride",
    default=False,
    accepts=FLAG,
    doc="Keep all frames; otherwise stages two to four halve them.",
)
_MIDPLANES = HParam(
    name="midplanes",
    default="torchvision",
    accepts=Choice(values=("torchvision", "paper")),
    doc="Channels between the spatial and the temporal half of a convolution: computed once per "
    "block, as in torchvision's weights, or per convolution, as in the paper.",
)
_STUDY_LAYOUT = HParam(
    name="study_layout",
    default=False,
    accepts=FLAG,
    doc="Biases in split convolutions, split shortcuts, and a stem whose middle follows the formula.",
)
_STEM_FRAMES = HParam(
    name="stem_frames",
    default=7,
    accepts=Choice(values=(3, 5, 7)),
    doc="Frames that the first convolution sees.",
)
_STEM_STRIDE = HParam(
    name="stem_temporal_stride",
    default=1,
    accepts=Choice(values=(1, 2)),
    doc="Frames from one position of the first convolution to the next.",
)
_SHORTCUT = HParam(
    name="shortcut",
    default="projection",
    accepts=Choice(values=("projection", "padding")),
    doc="Shortcuts of blocks that change the shape: a convolution, or every second position and channels of zeros.",
)
_SPLIT_SHORTCUT = HParam(
    name="shortcut",
    default="projection",
    accepts=Choice(values=("projection", "split")),
    doc="Shortcuts of blocks that change the shape: a convolution, or one in two halves, as in MMAction2's network.",
)
_STEM_MIDPLANES = HParam(
    name="stem_midplanes",
    default="torchvision",
    accepts=Choice(values=("torchvision", "paper")),
    doc="Channels inside the first convolution: 45, as in torchvision's weights, or by the paper's rule.",
)
_FRAMES = SearchChoice(name="clip.frames", values=(8, 16, 32))
_SEARCH = {
    "r3d": (_FRAMES, SearchChoice(name="model.without_t_stride", values=(False, True))),
    "mc3": (_FRAMES,),
    "r2plus1d": (_FRAMES, SearchChoice(name="model.midplanes", values=("torchvision", "paper"))),
}


def _stem_pool(default: bool) -> HParam:
    return HParam(
        name="stem_pool",
        default=default,
        accepts=FLAG,
        doc="Halve the image once more after the stem.",
    )


def _card(
    name: str,
    family: str,
    *,
    convolution: str,
    parameters: int,
    gflops: float,
    depth: int = 18,
    paper: str = _TRAN,
    clip: Clip = _KINETICS,
    more: tuple[HParam, ...] = (),
    form: tuple[tuple[str, Value], ...] = (),
    search: tuple[SearchChoice, ...] | None = None,
) -> ModelInfo:
    fixed: tuple[tuple[str, Value], ...] = (("convolution", convolution), ("depth", depth), *form)
    return ModelInfo(
        name=name,
        family=family,
        paper=paper,
        clip=clip,
        builder="models.architectures.r3d:R3D",
        hparams=(_WIDTH, _ZERO_INIT, *more),
        fixed=fixed,
        dropout=0.5 if depth > 34 and not form else 0.0,
        # Stem and stages halve the image four times, a pool once more.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=_SEARCH[convolution] if search is None else search,
    )


def _hara(convolution: str, depth: int, *, parameters: int, gflops: float) -> ModelInfo:
    """Return a network of Hara et al. in the form of their authors' program, with its statistics and no dropout."""
    split = convolution == "r2plus1d"
    form: tuple[tuple[str, Value], ...] = (("stem", "hara"),)
    return _card(
        f"{convolution}_{depth}_hara",
        "R(2+1)D" if split else "R3D",
        convolution=convolution,
        depth=depth,
        paper=_HARA,
        clip=_HARA_CLIP,
        more=(_stem_pool(True), _STEM_FRAMES, _STEM_STRIDE, _SHORTCUT, _WITHOUT_T_STRIDE),
        form=(*form, ("midplanes", "paper")) if split else form,
        parameters=parameters,
        gflops=gflops,
        search=(_FRAMES, SearchChoice(name="model.stem_frames", values=(3, 5, 7))),
    )


_BASIC = (_stem_pool(False), _WITHOUT_T_STRIDE)
_DEEP = (_stem_pool(True), _WITHOUT_T_STRIDE)
_SPLIT = (_MIDPLANES, _WITHOUT_T_STRIDE)
_SPLIT_BASIC = (*_SPLIT, _stem_pool(False), _STEM_MIDPLANES, _SPLIT_SHORTCUT, _STUDY_LAYOUT)

CARDS = (
    _card("r3d_18", "R3D", convolution="r3d", more=_BASIC, parameters=33_371_472, gflops=40.697),
    _card("r3d_34", "R3D", convolution="r3d", depth=34, more=_BASIC, parameters=63_681_104, gflops=75.378),
    _card(
        "r3d_50",
        "R3D",
        convolution="r3d",
        depth=50,
        paper=_HARA,
        clip=_IMAGENET,
        more=_DEEP,
        parameters=46_980_944,
        gflops=117.841,
    ),
    _card(
        "r3d_101",
        "R3D",
        convolution="r3d",
        depth=101,
        paper=_HARA,
        clip=_IMAGENET,
        more=_DEEP,
        parameters=86_027_088,
        gflops=178.984,
    ),
    _card("mc3_18", "MC3", convolution="mc3", parameters=11_695_440, gflops=43.343),
    _card(
        "r2plus1d_18",
        "R(2+1)D",
        convolution="r2plus1d",
        more=_SPLIT_BASIC,
        parameters=31_505_325,
        gflops=40.519,
    ),
    _card(
        "r2plus1d_34",
        "R(2+1)D",
        convolution="r2plus1d",
        depth=34,
        clip=_KINETICS_32,
        more=_SPLIT_BASIC,
        parameters=61_831_661,
        gflops=150.401,
    ),
    _card(
        "r2plus1d_50", "R(2+1)D", convolution="r2plus1d", depth=50, more=_SPLIT, parameters=53_949_691, gflops=65.233
    ),
    _hara("r3d", 18, parameters=33_409_104, gflops=8.308),
    _hara("r3d", 34, parameters=63_718_736, gflops=12.696),
    _hara("r3d", 50, parameters=47_018_576, gflops=10.069),
    _hara("r3d", 101, parameters=86_064_720, gflops=13.891),
    _hara("r2plus1d", 18, parameters=33_421_164, gflops=8.477),
    _hara("r2plus1d", 34, parameters=63_747_500, gflops=12.865),
    _hara("r2plus1d", 50, parameters=47_035_382, gflops=10.524),
)
