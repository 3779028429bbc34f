"""Cards of the late fusions: a network of images for RGB and one for flow."""

from __future__ import annotations

from models.card import Choice, HParam, Integer, ModelInfo, Number, SearchChoice, SearchRange

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
_BACKBONES = ("resnet18", "resnet50", "resnet101", "inception_v1", "inception_v3", "vgg16", "vgg16_reducedfc")
# Parameters of the flow network are a few more: its first convolution sees 20 channels.
_SIZES: dict[str, tuple[int, float]] = {}


def _card(backbone: ModelInfo) -> ModelInfo:
    parameters, gflops = _SIZES.get(backbone.name, (0, 0.0))
    return ModelInfo(
        name=f"two_stream_{backbone.name}",
        family="Two-stream",
        paper=_PAPER,
        clip=backbone.clip,
        builder="models.two_stream:LateFusion",
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


CARDS = tuple(_card(card) for card in (*resnet2d.CARDS, *inception.CARDS, *vgg.CARDS) if card.name in _BACKBONES)
