"""Cards of the spatiotemporal multiplier networks."""

from __future__ import annotations

from ..card import FLAG, Choice, HParam, ModelInfo, Number, SearchChoice, SearchRange, Value
from .resnet2d import WIDTH, clip
from .two_stream import FLOW_CHANNELS

_PAPER = "Feichtenhofer et al., Spatiotemporal Multiplier Networks for Video Action Recognition, CVPR 2017"


def _hparams(depth: int) -> tuple[HParam, ...]:
    # The stages of 18 layers have two blocks each.
    last = 1 if depth == 18 else 2
    return (
        WIDTH,
        FLOW_CHANNELS,
        HParam(
            name="gate",
            default="mul",
            accepts=Choice(values=("mul", "add", "none")),
            doc="How motion maps enter the appearance stream's residual branches.",
        ),
        HParam(
            name="gate_block",
            default=1,
            accepts=Choice(values=tuple(range(1, last + 1))),
            doc="The block of every stage, from 0, that is gated: 1 in the paper.",
        ),
        HParam(
            name="gate_preact",
            default=True,
            accepts=FLAG,
            doc="Gate appearance maps before the ReLU that ends their block, as the paper does, or after it.",
        ),
        HParam(
            name="temporal_block",
            default=1,
            accepts=Choice(values=tuple(range(last + 1))),
            doc="The block of every stage, from 0, that convolves over time.",
        ),
        HParam(
            name="temporal_init",
            default="centre",
            accepts=Choice(values=("centre", "difference", "average")),
            doc="The filter over three images that a temporal convolution starts as.",
        ),
        HParam(
            name="temporal_norm",
            default=False,
            accepts=FLAG,
            doc="A batch norm after each temporal convolution in place of its bias.",
        ),
        HParam(
            name="pool_order",
            default="time_first",
            accepts=Choice(values=("time_first", "space_first")),
            doc="Take the maximum over time before the average over space, or after it.",
        ),
        HParam(name="head_relu", default=False, accepts=FLAG, doc="A ReLU on the logits of each stream."),
        HParam(
            name="stem_bias",
            default=True,
            accepts=FLAG,
            doc="A bias in the first convolution of each stream, as in Caffe's and MatConvNet's ResNets; without it, a "
            "stream has the parameters of torchvision's ResNet and of the temporal convolutions.",
        ),
        HParam(
            name="spatial_loss_weight",
            default=1.0,
            accepts=Number(low=0.0, high=10.0),
            doc="Weight of the appearance stream's loss; that of the motion stream is 1.",
        ),
    )


def _card(depth: int, *, parameters: int, gflops: float) -> ModelInfo:
    fixed: tuple[str, Value] = ("depth", depth)
    return ModelInfo(
        name=f"stmulnet_r{depth}",
        family="Spatiotemporal multiplier",
        paper=_PAPER,
        clip=clip(5, stride=10),
        builder="models.architectures.stmulnet:StMulNet",
        hparams=_hparams(depth),
        fixed=(fixed,),
        dropout=0.8,
        inputs=("rgb", "flow"),
        # Stem and stages halve the image five times.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=(
            SearchChoice(name="clip.frames", values=(5, 10, 15, 25)),
            SearchChoice(name="model.gate", values=("mul", "add", "none")),
            *((SearchChoice(name="model.gate_block", values=(1, 2)),) if depth > 18 else ()),
            SearchChoice(name="model.temporal_init", values=("centre", "difference", "average")),
            SearchRange(name="model.spatial_loss_weight", low=0.25, high=1.0),
        ),
    )


CARDS = (
    _card(18, parameters=24_907_744, gflops=23.021),
    _card(34, parameters=45_124_064, gflops=41.518),
    _card(50, parameters=50_799_584, gflops=45.758),
    _card(101, parameters=88_783_840, gflops=82.88),
    _card(152, parameters=120_071_136, gflops=120.003),
)
