"""Cards of the VGG-16 networks of images."""

from __future__ import annotations

from ..card import Clip, Divides, ModelInfo
from .resnet2d import CONSENSUS, SEQ_LEN, WIDTH, clip

_VGG = "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015"
_SSD = "Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016"
# The reduced form was trained on values from 0 to 255 less these means, in this file's order red, green, blue.
_REDUCED = Clip(frames=1, stride=8, size=300, mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255, 1 / 255, 1 / 255))


def _card(
    name: str, *, builder: str, parameters: int, gflops: float, norm: bool = False, reduced: bool = False
) -> ModelInfo:
    return ModelInfo(
        name=name,
        family="VGG (frames)",
        paper=_SSD if reduced else _VGG,
        clip=_REDUCED if reduced else clip(1),
        builder=f"models.architectures.vgg:{builder}",
        hparams=(WIDTH, CONSENSUS, SEQ_LEN),
        fixed=(("batch_norm", norm),),
        rules=(Divides(divisor="seq_len", of="frames"),),
        of_images=True,
        dropout=0.6 if reduced else 0.5,
        # With fewer pixels, the input of the reduced form's last convolution (or of the fifth pool) is empty.
        min_size=92 if reduced else 32,
        parameters=parameters,
        gflops=gflops,
    )


CARDS = (
    _card("vgg16", builder="VGG16", parameters=135_899_344, gflops=15.468),
    _card("vgg16_bn", builder="VGG16", parameters=135_907_792, gflops=15.468, norm=True),
    _card("vgg16_reducedfc", builder="VGG16ReducedFC", parameters=39_770_320, gflops=29.993, reduced=True),
)
