"""Changes of colour on bytes, with torchvision's kernels, alike for all frames of a clip.

Statistics of the picture, such as its mean grey, are taken over the whole clip: frame by frame they would flicker.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from torch import Tensor

from .augment import Change, Operation


def recolour(pictures: Tensor, change: Change) -> Tensor:
    """Return uint8 pictures (T, 3, H, W) with brightness, contrast, saturation and hue changed, in this order."""
    kernels = _kernels()
    if change.brightness != 1:
        pictures = kernels.adjust_brightness(pictures, change.brightness)
    if change.contrast != 1:
        pictures = _as_one(lambda tall: kernels.adjust_contrast(tall, change.contrast), pictures)
    if change.saturation != 1:
        pictures = kernels.adjust_saturation(pictures, change.saturation)
    if change.hue != 0:
        pictures = kernels.adjust_hue(pictures, change.hue)
    return pictures


def adjust(pictures: Tensor, operation: Operation) -> Tensor:
    """Return uint8 pictures (T, 3, H, W) after a RandAugment operation that moves no pixels."""
    return _OPERATIONS[operation.name](_kernels(), pictures, operation.amount)


_OPERATIONS: dict[str, Callable[[ModuleType, Tensor, float], Tensor]] = {
    "identity": lambda _, x, __: x,
    "brightness": lambda kernels, x, amount: kernels.adjust_brightness(x, amount),
    "saturation": lambda kernels, x, amount: kernels.adjust_saturation(x, amount),
    "contrast": lambda kernels, x, amount: _as_one(lambda tall: kernels.adjust_contrast(tall, amount), x),
    "sharpness": lambda kernels, x, amount: kernels.adjust_sharpness(x, amount),
    "posterize": lambda kernels, x, amount: kernels.posterize(x, int(amount)),
    "solarize": lambda kernels, x, amount: kernels.solarize(x, amount),
    "autocontrast": lambda kernels, x, _: _as_one(kernels.autocontrast, x),
    "equalize": lambda kernels, x, _: _as_one(kernels.equalize, x),
}


def _as_one(work: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Return pictures (T, C, H, W) after `work`, which gets them below each other as one picture."""
    stacked = pictures.transpose(0, 1)
    return work(stacked.flatten(1, 2)).view(stacked.shape).transpose(0, 1)


def _kernels() -> ModuleType:
    # Costs half a second to import, and not every training changes colours.
    from torchvision.transforms.v2 import functional

    module: ModuleType = functional
    return module
