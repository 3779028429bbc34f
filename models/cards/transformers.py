"""Cards of the video transformers: MViT v2 and Video Swin."""

from __future__ import annotations

from ..card import Clip, Divides, HParam, Integer, ModelInfo, Number, SearchRange

# Transformers are trained with AdamW, which needs lower learning rates and a higher decay than SGD.
_SEARCH_BASE = (("optimizer", "adamw"),)
_SEARCH = (
    SearchRange(name="lr", low=1e-5, high=3e-3, log=True),
    SearchRange(name="weight_decay", low=1e-3, high=0.3, log=True),
    SearchRange(name="dropout", low=0.0, high=0.6),
    SearchRange(name="model.stochastic_depth", low=0.0, high=0.5),
    SearchRange(name="model.attention_dropout", low=0.0, high=0.3),
)
_ATTENTION_DROPOUT = HParam(
    name="attention_dropout",
    default=0.0,
    accepts=Number(low=0.0, high=0.9),
    doc="Probability of leaving out a weight of attention.",
)


def _stochastic_depth(default: float) -> HParam:
    return HParam(
        name="stochastic_depth",
        default=default,
        accepts=Number(low=0.0, high=0.9),
        doc="Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks.",
    )


def _swin(name: str, *, third_depth: int, width: int, parameters: int, gflops: float) -> ModelInfo:
    return ModelInfo(
        name=name,
        family="Video Swin",
        paper="Liu et al., Video Swin Transformer, CVPR 2022",
        clip=Clip(frames=32, stride=2, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        builder="models.architectures.swin3d:Swin3D",
        hparams=(
            HParam(
                name="width",
                default=width,
                accepts=Integer(low=4, high=512),
                doc="Channels of the first stage, doubled from stage to stage; a multiple of head_width.",
            ),
            HParam(
                name="head_width",
                default=32,
                accepts=Integer(low=4, high=128),
                doc="Channels of an attention head; divides width.",
            ),
            _stochastic_depth(0.1),
            _ATTENTION_DROPOUT,
        ),
        fixed=(("third_depth", third_depth),),
        rules=(Divides(divisor="head_width", of="width"),),
        dropout=0.0,
        min_frames=1,
        min_size=4,
        parameters=parameters,
        gflops=gflops,
        search=_SEARCH,
        search_base=_SEARCH_BASE,
    )


CARDS = (
    ModelInfo(
        name="mvit_v2_s",
        family="MViT v2",
        paper="Li et al., MViTv2: Improved Multiscale Vision Transformers, CVPR 2022",
        clip=Clip(frames=16, stride=4, size=224, mean=(0.45,) * 3, std=(0.225,) * 3),
        builder="models.architectures.mvit:MViT",
        hparams=(
            HParam(
                name="width",
                default=96,
                accepts=Integer(low=4, high=512),
                doc="Channels of the first stage and of every attention head.",
            ),
            HParam(
                name="table_frames",
                default=16,
                accepts=Integer(low=2, high=256),
                doc="Frames for which tables of relative positions are made; others are interpolated.",
            ),
            HParam(
                name="table_size",
                default=224,
                accepts=Integer(low=32, high=1024),
                doc="Pixels a side for which tables of relative positions are made; others are interpolated.",
            ),
            _stochastic_depth(0.2),
            _ATTENTION_DROPOUT,
        ),
        dropout=0.5,
        min_frames=2,
        # Patches of 4 pixels, whose positions are halved three times.
        min_size=32,
        parameters=34_537_744,
        gflops=64.224,
        search=_SEARCH,
        search_base=_SEARCH_BASE,
    ),
    _swin("swin3d_t", third_depth=6, width=96, parameters=28_158_070, gflops=87.764),
    _swin("swin3d_s", third_depth=18, width=96, parameters=49_816_678, gflops=165.682),
    _swin("swin3d_b", third_depth=18, width=128, parameters=88_048_984, gflops=281.333),
)
