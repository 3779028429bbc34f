"""Cards of Hiera."""

from __future__ import annotations

from ..card import Clip, Divides, HParam, Integer, ModelInfo
from .transformers import SEARCH, SEARCH_BASE, stochastic_depth


def _card(letter: str, *, depth: int, width: int, heads: int, drop: float, parameters: int, gflops: float) -> ModelInfo:
    return ModelInfo(
        name=f"hiera_{letter}",
        family="Hiera",
        paper="Ryali et al., Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles, ICML 2023",
        clip=Clip(frames=16, stride=4, size=224, mean=(0.45,) * 3, std=(0.225,) * 3),
        builder="models.architectures.hiera:Hiera",
        hparams=(
            HParam(
                name="width",
                default=width,
                accepts=Integer(low=4, high=512),
                doc="Channels of the first stage, doubled from stage to stage; a multiple of heads.",
            ),
            HParam(
                name="heads",
                default=heads,
                accepts=Integer(low=1, high=16),
                doc="Attention heads of the first stage, doubled from stage to stage; divides width.",
            ),
            HParam(
                name="table_frames",
                default=16,
                accepts=Integer(low=2, high=256),
                doc="Frames for which positions are learned; for other clips they are interpolated.",
            ),
            HParam(
                name="table_size",
                default=224,
                accepts=Integer(low=32, high=1024),
                doc="Pixels a side for which positions are learned; for other clips they are interpolated.",
            ),
            stochastic_depth(drop),
        ),
        fixed=(("depth", depth),),
        rules=(Divides(divisor="heads", of="width"),),
        dropout=0.0,
        min_frames=2,
        # A square of eight patches of 4 pixels.
        min_size=32,
        parameters=parameters,
        gflops=gflops,
        # There is no dropout of attention.
        search=SEARCH[:4],
        search_base=SEARCH_BASE,
    )


CARDS = (
    _card("b", depth=24, width=96, heads=1, drop=0.1, parameters=51_092_560, gflops=101.726),
    _card("l", depth=48, width=144, heads=2, drop=0.2, parameters=213_091_600, gflops=412.13),
)
