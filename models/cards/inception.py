"""Cards of the Inception networks of images: v1, also as TSN, TSM and TAM, and v3."""

from __future__ import annotations

from ..card import FLAG, Clip, Divides, HParam, Integer, ModelInfo, Number, SearchParameter, Value
from .resnet2d import (
    BLEND,
    COMMON,
    CONSENSUS,
    SEARCH_BLEND,
    SEARCH_SHIFT,
    SEGMENTS,
    SEQ_LEN,
    SHIFT,
    TEMPORAL_POOL,
    clip,
)

_V1 = "Szegedy et al., Going Deeper with Convolutions, CVPR 2015"
_V3 = "Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016"
_TSN = "Wang et al., Temporal Segment Networks: Towards Good Practices for Deep Action Recognition, ECCV 2016"
_TSM = "Lin et al., TSM: Temporal Shift Module for Efficient Video Understanding, ICCV 2019"
_TAM = (
    "Fan et al., More Is Less: Learning Efficient Video Representations by Big-Little Network and Depthwise "
    "Temporal Aggregation, NeurIPS 2019"
)
_RULES = (Divides(divisor="seq_len", of="frames"),)


def _width(default: int) -> HParam:
    return HParam(
        name="width",
        default=default,
        accepts=Integer(low=4, high=256),
        doc="Channels of the stem; every other width is scaled with it.",
    )


def _v1(
    name: str,
    family: str,
    paper: str,
    *,
    hparams: tuple[HParam, ...],
    parameters: int = 6_009_904,
    frames: int = 8,
    gflops: float = 11.982,
    fixed: tuple[tuple[str, Value], ...] = (),
    search: tuple[SearchParameter, ...] = (),
    of_images: bool = False,
) -> ModelInfo:
    return ModelInfo(
        name=name,
        family=family,
        paper=paper,
        clip=clip(frames),
        builder="models.architectures.inception_v1:InceptionV1",
        hparams=(_width(64), CONSENSUS, *hparams),
        fixed=fixed,
        rules=_RULES if SEQ_LEN in hparams else (),
        of_images=of_images,
        dropout=0.5,
        # Stem and pools halve the image five times.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=search,
    )


CARDS = (
    _v1("inception_v1", "Inception-v1 (frames)", _V1, hparams=(SEQ_LEN,), frames=1, gflops=1.498, of_images=True),
    _v1(
        "tsn_inception_v1",
        "TSN",
        _TSN,
        hparams=(TEMPORAL_POOL, *COMMON),
        search=(SEGMENTS,),
        of_images=True,
    ),
    _v1(
        "tsm_inception_v1",
        "TSM",
        _TSM,
        hparams=(SHIFT[0], *COMMON),
        fixed=(("temporal_module", "shift"),),
        search=SEARCH_SHIFT[:2],
    ),
    _v1(
        "tam_inception_v1",
        "TAM",
        _TAM,
        hparams=(*BLEND, *COMMON),
        fixed=(("temporal_module", "aggregation"),),
        parameters=6_027_328,
        search=SEARCH_BLEND,
    ),
    ModelInfo(
        name="inception_v3",
        family="Inception-v3 (frames)",
        paper=_V3,
        clip=Clip(frames=1, stride=8, size=299, mean=(0.5,) * 3, std=(0.5,) * 3),
        builder="models.architectures.inception_v3:InceptionV3",
        hparams=(
            _width(32),
            CONSENSUS,
            SEQ_LEN,
            HParam(name="aux", default=False, accepts=FLAG, doc="Train a second classifier on the maps in the middle."),
            HParam(
                name="aux_weight",
                default=0.4,
                accepts=Number(low=0.0, high=1.0),
                doc="Weight of the second classifier's loss.",
            ),
        ),
        rules=_RULES,
        of_images=True,
        dropout=0.6,
        # With fewer pixels the last maps are empty.
        min_size=75,
        parameters=22_605_168,
        gflops=5.712,
    ),
)
