"""Cards of the multiscale video transformers: both versions of MViT, and Video Swin."""

from __future__ import annotations

from ..card import Choice, Clip, Divides, HParam, Integer, ModelInfo, Number, SearchRange

# Transformers are trained with AdamW, which needs lower learning rates and a higher decay than SGD.
SEARCH_BASE = (("optimizer", "adamw"),)
SEARCH = (
    SearchRange(name="lr", low=1e-5, high=3e-3, log=True),
    SearchRange(name="weight_decay", low=1e-3, high=0.3, log=True),
    SearchRange(name="dropout", low=0.0, high=0.6),
    SearchRange(name="model.stochastic_depth", low=0.0, high=0.5),
    SearchRange(name="model.attention_dropout", low=0.0, high=0.3),
)
ATTENTION_DROPOUT = HParam(
    name="attention_dropout",
    default=0.0,
    accepts=Number(low=0.0, high=0.9),
    doc="Probability of leaving out a weight of attention.",
)


def stochastic_depth(default: float) -> HParam:
    return HParam(
        name="stochastic_depth",
        default=default,
        accepts=Number(low=0.0, high=0.9),
        doc="Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks.",
    )


_WIDEN = HParam(
    name="widen",
    default="attention",
    accepts=Choice(values=("attention", "mlp")),
    doc="What widens the channels of a stage: its first attention, or, as in MaskFeat's network, the layer before it.",
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
            stochastic_depth(0.1),
            ATTENTION_DROPOUT,
        ),
        fixed=(("third_depth", third_depth),),
        rules=(Divides(divisor="head_width", of="width"),),
        dropout=0.0,
        min_frames=1,
        min_size=4,
        parameters=parameters,
        gflops=gflops,
        search=SEARCH,
        search_base=SEARCH_BASE,
    )


def _mvit(
    name: str,
    *,
    version: int,
    depth: int,
    frames: int,
    stride: int,
    drop: float,
    parameters: int,
    gflops: float,
) -> ModelInfo:
    second = "Li et al., MViTv2: Improved Multiscale Vision Transformers, CVPR 2022"
    return ModelInfo(
        name=name,
        family="MViT v2" if version == 2 else "MViT",
        paper=second if version == 2 else "Fan et al., Multiscale Vision Transformers, ICCV 2021",
        clip=Clip(frames=frames, stride=stride, size=224, mean=(0.45,) * 3, std=(0.225,) * 3),
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
                default=frames,
                accepts=Integer(low=2, high=256),
                doc="Frames for which tables of positions are made; others are interpolated.",
            ),
            HParam(
                name="table_size",
                default=224,
                accepts=Integer(low=32, high=1024),
                doc="Pixels a side for which tables of positions are made; others are interpolated.",
            ),
            stochastic_depth(drop),
            ATTENTION_DROPOUT,
            *((_WIDEN,) if version == 2 else ()),
        ),
        fixed=(("version", version), ("depth", depth)),
        dropout=0.5,
        min_frames=2,
        # Patches of 4 pixels, whose positions are halved three times.
        min_size=32,
        parameters=parameters,
        gflops=gflops,
        search=SEARCH,
        search_base=SEARCH_BASE,
    )


CARDS = (
    _mvit("mvit_v1_b", version=1, depth=16, frames=16, stride=4, drop=0.2, parameters=36_610_672, gflops=70.599),
    _mvit("mvit_v1_b_32x3", version=1, depth=16, frames=32, stride=3, drop=0.3, parameters=36_611_440, gflops=169.958),
    _mvit("mvit_v2_s", version=2, depth=16, frames=16, stride=4, drop=0.2, parameters=34_537_744, gflops=64.224),
    _mvit("mvit_v2_b", version=2, depth=24, frames=32, stride=3, drop=0.3, parameters=51_230_128, gflops=224.473),
    _swin("swin3d_t", third_depth=6, width=96, parameters=28_158_070, gflops=87.764),
    _swin("swin3d_s", third_depth=18, width=96, parameters=49_816_678, gflops=165.682),
    _swin("swin3d_b", third_depth=18, width=128, parameters=88_048_984, gflops=281.333),
)
