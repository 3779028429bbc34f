"""Cards of the residual networks with separated or split bottlenecks: CSN, and PyTorchVideo's R(2+1)D-50."""

from __future__ import annotations

from ..card import FLAG, Clip, HParam, Integer, ModelInfo, SearchChoice

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


def _card(
    name: str,
    family: str,
    paper: str,
    *,
    kind: str,
    depth: int,
    frames: int,
    stride: int,
    parameters: int,
    gflops: float,
    norm_eps: float = 1e-5,
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45),
    std: tuple[float, float, float] = (0.225, 0.225, 0.225),
) -> ModelInfo:
    return ModelInfo(
        name=name,
        family=family,
        paper=paper,
        clip=Clip(frames=frames, stride=stride, size=224, mean=mean, std=std),
        builder="models.architectures.bottleneck_net:BottleneckNet",
        hparams=_HPARAMS,
        fixed=(("kind", kind), ("depth", depth), ("norm_eps", norm_eps)),
        dropout=0.5,
        # Stem and stages halve the image five times.
        min_size=16,
        parameters=parameters,
        gflops=gflops,
        search=(SearchChoice(name="clip.frames", values=(8, 16, 32)),),
    )


_CSN = "Tran et al., Video Classification with Channel-Separated Convolutional Networks, ICCV 2019"


def _csn_152(name: str, *, kind: str, parameters: int, gflops: float) -> ModelInfo:
    """Return a card of the authors' deep networks, with the statistics of their weights."""
    return _card(
        name,
        "CSN",
        _CSN,
        kind=kind,
        depth=152,
        frames=32,
        stride=2,
        parameters=parameters,
        gflops=gflops,
        norm_eps=1e-3,
        mean=(0.43216, 0.394666, 0.37645),
        std=(0.22803, 0.22145, 0.216989),
    )


CARDS = (
    _csn_152("csn_r152", kind="separated", parameters=29_703_568, gflops=74.046),
    _csn_152("csn_r152_ip", kind="preserved", parameters=33_016_592, gflops=83.295),
    _card(
        "csn_r101",
        "CSN",
        _CSN,
        kind="separated",
        depth=101,
        frames=32,
        stride=2,
        parameters=22_213_776,
        gflops=56.468,
    ),
    _card(
        "r2plus1d_r50",
        "R(2+1)D",
        "Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018",
        kind="split",
        depth=50,
        frames=16,
        stride=4,
        parameters=28_107_600,
        gflops=57.534,
    ),
)
