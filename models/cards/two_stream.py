"""Cards of the late fusions: a network of images for RGB and one for flow."""

from __future__ import annotations

from ..card import Choice, HParam, Integer, ModelInfo, Number, SearchChoice, SearchRange
from . import inception, resnet2d, vgg

_PAPER = "Simonyan and Zisserman, Two-Stream Convolutional Networks for Action Recognition in Videos, NIPS 2014"
FLOW_CHANNELS = HParam(
    name="flow_channels",
    default=20,
    accepts=Integer(low=1, high=100),
    doc="Channels of the flow clip: two for each pair of frames that one image stacks.",
)
_FUSION = (
    FLOW_CHANNELS,
    HParam(
        name="fusion",
        default="probability",
        accepts=Choice(values=("probability", "logit")),
        doc="Average the two networks' softmaxes, or their logits.",
    ),
    HParam(
        name="flow_weight",
        default=1.5,
        accepts=Number(low=0.1, high=10.0),
        doc="Weight of the flow network in the average; that of the RGB network is 1.",
    ),
)
_SEARCH = (
    SearchRange(name="model.flow_weight", low=0.5, high=2.0),
    SearchChoice(name="model.flow_channels", values=(10, 20)),
)
# The networks that are fused, with parameters and cost of the pair: more than twice those of one, since the first
# convolution of the flow network sees 20 channels.
_SIZES = {
    "resnet18": (22_816_736, 4.296),
    "resnet50": (48_708_576, 8.845),
    "resnet101": (86_692_832, 16.269),
    "inception_v1": (12_073_120, 3.664),
    "inception_v3": (45_215_232, 11.533),
    "vgg16": (271_808_480, 31.427),
    "vgg16_reducedfc": (79_550_432, 60.868),
}


def _card(backbone: ModelInfo) -> ModelInfo:
    parameters, gflops = _SIZES[backbone.name]
    return ModelInfo(
        name=f"two_stream_{backbone.name}",
        family="Two-stream",
        paper=_PAPER,
        clip=backbone.clip,
        builder="models.architectures.two_stream:LateFusion",
        hparams=(*_FUSION, *backbone.hparams),
        fixed=(("backbone", backbone.name),),
        rules=backbone.rules,
        dropout=backbone.dropout,
        inputs=("rgb", "flow"),
        min_size=backbone.min_size,
        parameters=parameters,
        gflops=gflops,
        search=_SEARCH,
    )


CARDS = tuple(_card(card) for card in (*resnet2d.CARDS, *inception.CARDS, *vgg.CARDS) if card.name in _SIZES)
