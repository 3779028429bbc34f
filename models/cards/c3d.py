"""Card of C3D."""

from __future__ import annotations

from ..card import Clip, HParam, Integer, ModelInfo, SearchChoice

CARDS = (
    ModelInfo(
        name="c3d",
        family="C3D",
        paper="Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015",
        # The weights of Sports-1M were trained on values from 0 to 255 less these means.
        clip=Clip(frames=16, stride=1, size=112, mean=(104 / 255, 117 / 255, 128 / 255), std=(1 / 255,) * 3),
        builder="models.architectures.c3d:C3D",
        hparams=(
            HParam(
                name="width",
                default=64,
                accepts=Integer(low=4, high=256),
                doc="Channels of the first convolution; those of the others follow from it.",
            ),
            HParam(
                name="hidden_width",
                default=4096,
                accepts=Integer(low=8, high=8192),
                doc="Outputs of both hidden linear layers.",
            ),
        ),
        dropout=0.5,
        # Three pools halve the frames, and four the image, before the last one.
        min_frames=8,
        min_size=16,
        parameters=79_634_576,
        gflops=38.549,
        search=(SearchChoice(name="clip.frames", values=(8, 16, 32)),),
    ),
)
