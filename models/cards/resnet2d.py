"""Cards of the residual networks of images: plain, and as TSN, TSM and TAM."""

from __future__ import annotations

from ..card import FLAG, Choice, Clip, Divides, HParam, Integer, ModelInfo, SearchChoice, SearchParameter, Value

_RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_TSN = "Wang et al., Temporal Segment Networks: Towards Good Practices for Deep Action Recognition, ECCV 2016"
_TSM = "Lin et al., TSM: Temporal Shift Module for Efficient Video Understanding, ICCV 2019"
_TAM = (
    "Fan et al., More Is Less: Learning Efficient Video Representations by Big-Little Network and Depthwise "
    "Temporal Aggregation, NeurIPS 2019"
)
# Statistics of ImageNet, on which the published weights were trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

WIDTH = HParam(
    name="width",
    default=64,
    accepts=Integer(low=4, high=256),
    doc="Channels of the stem; every other width follows from it.",
)
ZERO_INIT = HParam(
    name="zero_init",
    default=False,
    accepts=FLAG,
    doc="Start every residual branch at zero (the scale of its last batch norm).",
)
CONSENSUS = HParam(
    name="consensus",
    default="average",
    accepts=Choice(values=("average", "max")),
    doc="How the logits of a clip's images are combined into those of the clip.",
)
SEQ_LEN = HParam(
    name="seq_len",
    default=1,
    accepts=Integer(low=1, high=25),
    doc="Neighbouring frames that are stacked on the channel axis as one image; divides the clip.",
)
NON_LOCAL = HParam(
    name="non_local",
    default=False,
    accepts=FLAG,
    doc="Add non-local blocks to the second and third stage.",
)
NON_LOCAL_FORM = HParam(
    name="non_local_form",
    default="ibm",
    accepts=Choice(values=("ibm", "tsm", "tsm_dot_product")),
    doc="Places and kind of the non-local blocks: of IBM's program, or of TSM's, there with a softmax or with plain "
    "products.",
)
TEMPORAL_STRIDE = HParam(
    name="temporal_stride",
    default=False,
    accepts=FLAG,
    doc="Halve the number of images three times on the way, by pooling over three.",
)
POOLING = HParam(
    name="pooling",
    default="max",
    accepts=Choice(values=("max", "average")),
    doc="How images are pooled where temporal_stride halves them.",
)
TEMPORAL_POOL = HParam(
    name="temporal_module",
    default="none",
    accepts=Choice(values=("none", "average", "max")),
    doc="Before each block, join every image with its two neighbours.",
)
SHIFT = (
    HParam(
        name="shift_divisor",
        default=8,
        accepts=Choice(values=(2, 3, 4, 8, 16, 32)),
        doc="One in this many channels is shifted in each direction.",
    ),
    HParam(
        name="shift_place",
        default="branch",
        accepts=Choice(values=("branch", "block")),
        doc="Shift for the residual branch alone, or for the shortcut as well.",
    ),
)


def _shift_every(depth: int) -> HParam:
    return HParam(
        name="shift_every",
        # As in TSM's program, where deeper networks shift in the branch.
        default=2 if depth > 50 else 1,
        accepts=Choice(values=(1, 2)),
        doc="Shift before each block, or before every second one of a stage, from the first on.",
    )


BLEND = (
    HParam(
        name="blend_frames",
        default=3,
        accepts=Choice(values=(3, 5, 7)),
        doc="Neighbouring images that are blended.",
    ),
    HParam(
        name="blend_method",
        default="sum",
        accepts=Choice(values=("sum", "max")),
        doc="Add the weighted images up, or take the largest of each value.",
    ),
    HParam(
        name="blend_depthwise",
        default=True,
        accepts=FLAG,
        doc="One weight per channel and image; off: a matrix between all channels.",
    ),
    HParam(
        name="blend_init",
        default="centre",
        accepts=Choice(values=("centre", "random")),
        doc="Start as the identity, which keeps image weights valid, or with random weights.",
    ),
)
SEGMENT_COUNT = HParam(
    name="segments",
    default=8,
    accepts=Integer(low=2, high=32),
    doc="Images of a clip that the layers over time are made for; the clips of the weights.",
)
PARTIAL_NORM = HParam(
    name="partial_norm",
    default=False,
    accepts=FLAG,
    doc="In training, all batch norms except the first keep the statistics that were loaded.",
)
COMMON = (NON_LOCAL, TEMPORAL_STRIDE, POOLING, PARTIAL_NORM)
SEGMENTS = SearchChoice(name="clip.frames", values=(3, 8, 16))
SEARCH_SHIFT: tuple[SearchParameter, ...] = (
    SEGMENTS,
    SearchChoice(name="model.shift_divisor", values=(4, 8, 16)),
    SearchChoice(name="model.shift_place", values=("branch", "block")),
)
SEARCH_BLEND: tuple[SearchParameter, ...] = (SEGMENTS, SearchChoice(name="model.blend_frames", values=(3, 5)))


def clip(frames: int, *, size: int = 224, stride: int = 8) -> Clip:
    """Return a clip with the statistics of ImageNet."""
    return Clip(frames=frames, stride=stride, size=size, mean=MEAN, std=STD)


def _card(
    name: str,
    family: str,
    paper: str,
    *,
    depth: int,
    parameters: int,
    gflops: float,
    frames: int,
    hparams: tuple[HParam, ...],
    fixed: tuple[tuple[str, Value], ...] = (),
    search: tuple[SearchParameter, ...] = (),
    of_images: bool = False,
) -> ModelInfo:
    depth_value: tuple[str, Value] = ("depth", depth)
    return ModelInfo(
        name=name,
        family=family,
        paper=paper,
        clip=clip(frames),
        builder="models.architectures.resnet2d:ResNet2D",
        hparams=(WIDTH, ZERO_INIT, CONSENSUS, *hparams),
        fixed=(depth_value, *fixed),
        rules=(Divides(divisor="seq_len", of="frames"),) if SEQ_LEN in hparams else (),
        of_images=of_images,
        dropout=0.5,
        # Stem and stages halve the image five times.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=search,
    )


def _cards(depth: int, parameters: int, tam_parameters: int, gflops: float) -> tuple[ModelInfo, ...]:
    """Return TSN, TSM and TAM of one depth; `gflops` are those of eight images."""
    name = f"resnet{depth}"
    return (
        _card(
            f"tsn_{name}",
            "TSN",
            _TSN,
            depth=depth,
            parameters=parameters,
            gflops=gflops,
            frames=8,
            hparams=(TEMPORAL_POOL, *COMMON, NON_LOCAL_FORM),
            search=(SEGMENTS, SearchChoice(name="model.consensus", values=("average", "max"))),
            of_images=True,
        ),
        _card(
            f"tsm_{name}",
            "TSM",
            _TSM,
            depth=depth,
            parameters=parameters,
            gflops=gflops,
            frames=8,
            hparams=(*SHIFT, _shift_every(depth), *COMMON, NON_LOCAL_FORM),
            fixed=(("temporal_module", "shift"),),
            search=SEARCH_SHIFT,
        ),
        _card(
            f"tam_{name}",
            "TAM",
            _TAM,
            depth=depth,
            parameters=tam_parameters,
            gflops=gflops,
            frames=8,
            hparams=(*BLEND, *COMMON, NON_LOCAL_FORM),
            fixed=(("temporal_module", "aggregation"),),
            search=SEARCH_BLEND,
        ),
    )


def _tanet(depth: int, *, parameters: int, gflops: float) -> ModelInfo:
    return _card(
        f"tanet_resnet{depth}",
        "TANet",
        "Liu et al., TAM: Temporal Adaptive Module for Video Recognition, ICCV 2021",
        depth=depth,
        parameters=parameters,
        gflops=gflops,
        frames=8,
        hparams=(SEGMENT_COUNT, PARTIAL_NORM),
        fixed=(("temporal_module", "adaptive"),),
        search=(SEGMENTS,),
    )


def _image_card(depth: int, parameters: int, gflops: float) -> ModelInfo:
    return _card(
        f"resnet{depth}",
        "ResNet (frames)",
        _RESNET,
        depth=depth,
        parameters=parameters,
        gflops=gflops,
        frames=1,
        hparams=(SEQ_LEN,),
        of_images=True,
    )


CARDS = (
    _image_card(18, 11_381_712, 1.814),
    _image_card(34, 21_489_872, 3.663),
    _image_card(50, 24_327_632, 4.088),
    _image_card(101, 43_319_760, 7.8),
    _image_card(152, 58_963_408, 11.512),
    *_cards(18, 11_381_712, 11_386_128, 14.51),
    *_cards(50, 24_327_632, 24_366_992, 32.704),
    _tanet(50, parameters=25_590_320, gflops=32.714),
    *_cards(101, 43_319_760, 43_411_344, 62.401),
)
