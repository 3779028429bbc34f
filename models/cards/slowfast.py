"""Cards of the SlowFast networks."""

from __future__ import annotations

from ..card import FLAG, Choice, Clip, Divides, HParam, Integer, ModelInfo, SearchChoice

_PAPER = "Feichtenhofer et al., SlowFast Networks for Video Recognition, ICCV 2019"
_RULES = (Divides(divisor="beta_inv", of="width"), Divides(divisor="alpha", of="frames"))
NON_LOCAL = (
    HParam(
        name="non_local",
        default="none",
        accepts=Choice(values=("none", "softmax", "dot_product", "gaussian")),
        doc="Non-local blocks in the second and third stage: weights by a softmax, by plain products, or by a softmax "
        "of products that are not scaled.",
    ),
    HParam(
        name="non_local_pool",
        default="before",
        accepts=Choice(values=("before", "after")),
        doc="Halve the positions that are attended to before or after the convolutions of the non-local blocks.",
    ),
)
"""Of PySlowFast's networks (``softmax`` or ``dot_product``, pooled before) and MMAction2's (pooled after)."""
# All combinations of these values satisfy the rules, with the default width.
_SEARCH = (
    SearchChoice(name="clip.frames", values=(16, 24, 32)),
    SearchChoice(name="model.alpha", values=(4, 8)),
    SearchChoice(name="model.beta_inv", values=(4, 8, 16)),
    SearchChoice(name="model.fusion_ratio", values=(1, 2)),
    SearchChoice(name="model.fusion_kernel", values=(3, 5, 7)),
)


def _clip(size: int, frames: int) -> Clip:
    # The fast path's 32 frames, every 2nd of 64; statistics are those of the published weights.
    return Clip(frames=frames, stride=2, size=size, mean=(0.45,) * 3, std=(0.225,) * 3)


def _hparams(*, alpha: int, fusion_kernel: int) -> tuple[HParam, ...]:
    return (
        HParam(
            name="alpha",
            default=alpha,
            accepts=Integer(low=2, high=32),
            doc="Frames of the fast path for each frame of the slow path; divides the clip.",
        ),
        HParam(
            name="beta_inv",
            default=8,
            accepts=Integer(low=1, high=64),
            doc="Channels of the slow path for each channel of the fast path; divides width.",
        ),
        HParam(
            name="fusion_kernel",
            default=fusion_kernel,
            accepts=Choice(values=(1, 3, 5, 7, 9)),
            doc="Frames of the fast path that one lateral convolution sees.",
        ),
        HParam(
            name="fusion_ratio",
            default=2,
            accepts=Integer(low=1, high=8),
            doc="Channels of a lateral for each channel of the fast path.",
        ),
        HParam(
            name="width",
            default=64,
            accepts=Integer(low=4, high=256),
            doc="Channels of the slow path's stem; every other width follows from it.",
        ),
        HParam(
            name="slow_index",
            default="linspace",
            accepts=Choice(values=("linspace", "stride")),
            doc="Frames of the slow path: evenly from first to last, or every alpha-th.",
        ),
        HParam(
            name="lateral_norm",
            default=True,
            accepts=FLAG,
            doc="Batch norm and ReLU after each lateral convolution.",
        ),
        HParam(name="head_bias", default=True, accepts=FLAG, doc="A bias in the classifier."),
        HParam(
            name="zero_init",
            default=True,
            accepts=FLAG,
            doc="Start every residual branch at zero (the scale of its last batch norm).",
        ),
        *NON_LOCAL,
    )


def _card(
    name: str,
    *,
    fixed: tuple[tuple[str, int], ...],
    parameters: int,
    gflops: float,
    alpha: int = 8,
    fusion_kernel: int = 5,
    size: int = 224,
    frames: int = 32,
) -> ModelInfo:
    return ModelInfo(
        name=name,
        family="SlowFast",
        paper=_PAPER,
        clip=_clip(size, frames),
        builder="models.architectures.slowfast:SlowFast",
        hparams=_hparams(alpha=alpha, fusion_kernel=fusion_kernel),
        fixed=fixed,
        rules=_RULES,
        dropout=0.5,
        # Stem and stages halve the image five times; below 16 pixels two stages have a single position.
        min_size=16,
        fully_convolutional=True,
        parameters=parameters,
        gflops=gflops,
        search=_SEARCH,
    )


CARDS = (
    _card("slowfast_r18", fixed=(("depth", 18),), size=112, parameters=21_779_704, gflops=3.931),
    _card("slowfast_r50_4x16", fixed=(("depth", 50),), parameters=34_480_216, gflops=27.639),
    _card("slowfast_r50_8x8", fixed=(("depth", 50),), alpha=4, fusion_kernel=7, parameters=34_566_488, gflops=50.309),
    # 4x16, as the 50-layer network of the same alpha.
    _card("slowfast_r101", fixed=(("depth", 101),), parameters=62_826_968, gflops=52.205),
    _card("slowfast_r101_8x8", fixed=(("depth", 101),), alpha=4, parameters=62_826_968, gflops=96.397),
    _card(
        "slowfast_16x8_r101_50_50",
        fixed=(("depth", 101), ("res4_temporal_blocks", 6)),
        alpha=4,
        frames=64,
        parameters=53_774_808,
        gflops=163.095,
    ),
)
