"""The augmentation of one clip: drawn on the host as plain numbers, applied by `data.clips.pixels`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..seeding import Draws
from ..specs import AugmentSpec, Interpolation
from ..stores.protocol import Box
from .crops import training_box

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""RandAugment's list (Cubuk et al., CVPR Workshops 2020, section 3), in torchvision's order."""

STRONGEST = 10
_AMOUNT_AT_STRENGTH_10 = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "brightness": 0.9,
    "saturation": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
}
_ERASE_AREA = (0.02, 1 / 3)
_ERASE_RATIO = math.log(10 / 3)
_ERASE_TRIES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One step of RandAugment, in the unit of its kind.

    Shears are tangents, translations shares of the picture's side, rotations degrees clockwise, the four factors are
    1 where nothing changes; `posterize` says how many bits stay, `solarize` above which pixel values are inverted.
    """

    name: str
    amount: float = 0.0

    def turn(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the rows of the matrix, of determinant 1, by which the operation changes a displacement (x, y)."""
        if self.name == "rotate":
            cos, sin = math.cos(math.radians(self.amount)), math.sin(math.radians(self.amount))
            return (cos, -sin), (sin, cos)
        across = self.amount if self.name == "shear_x" else 0.0
        down = self.amount if self.name == "shear_y" else 0.0
        return (1.0, across), (down, 1.0)

    def places(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Return the rows of the matrix from a place (x, y, 1) of the result to that of the original.

        Both pictures are squares from -1 to 1.
        """
        (xx, xy), (yx, yy) = self.turn()
        shift = -2 * self.amount  # of a picture that is 2 wide
        return (yy, -xy, shift * (self.name == "translate_x")), (-yx, xx, shift * (self.name == "translate_y"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The changes to all frames of one clip, in this order: cut, resize, flip, operations, colours, erase."""

    box: Box
    """In pixels of the prepared frames."""
    flip: bool = False
    operations: tuple[Operation, ...] = ()
    interpolation: Interpolation = "bilinear"
    """Of operations that move pixels."""
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """Turns of the hue, from -0.5 to 0.5."""
    erase: Box | None = None
    """In pixels of the resized picture."""

    @property
    def recolours(self) -> bool:
        """Whether any colour is changed after the operations."""
        return (self.brightness, self.contrast, self.saturation, self.hue) != (1, 1, 1, 0)


def training_change(height: int, width: int, *, size: int, augment: AugmentSpec, draws: Draws) -> Change:
    """Return the random change of a training clip whose frames are `height` x `width`, to be resized to `size`."""
    return Change(
        box=training_box(height, width, augment, draws),
        flip=draws.random() < augment.flip,
        brightness=_factor(augment.jitter, draws),
        contrast=_factor(augment.jitter, draws),
        saturation=_factor(augment.saturation, draws),
        hue=draws.uniform(-augment.hue, augment.hue) if augment.hue else 0.0,
        operations=tuple(_operation(augment, draws) for _ in range(augment.randaugment_n)),
        interpolation=augment.randaugment_interpolation,
        erase=_erased(size, draws) if augment.erase and draws.random() < augment.erase else None,
    )


def _factor(range_: float, draws: Draws) -> float:
    return 1 + draws.uniform(-range_, range_) if range_ else 1.0


def _operation(augment: AugmentSpec, draws: Draws) -> Operation:
    name = OPERATIONS[draws.integer(len(OPERATIONS))]
    strength = augment.randaugment_m
    if augment.randaugment_noise:
        strength = min(max(draws.normal(strength, augment.randaugment_noise), 0.0), STRONGEST)
    share = strength / STRONGEST
    if name == "posterize":
        return Operation(name=name, amount=8 - round(4 * share))
    if name == "solarize":
        return Operation(name=name, amount=255 * (1 - share))
    if name not in _AMOUNT_AT_STRENGTH_10:
        return Operation(name=name)
    amount = _AMOUNT_AT_STRENGTH_10[name] * share * (1 if draws.random() < 0.5 else -1)
    return Operation(name=name, amount=amount if name in GEOMETRIC else 1 + amount)


GEOMETRIC = frozenset(("shear_x", "shear_y", "translate_x", "translate_y", "rotate"))
"""Operations that move pixels, and so change optical flow as well; the others are of colours alone."""


def _erased(size: int, draws: Draws) -> Box | None:
    """Return a box of 2 % to a third of the picture (Zhong et al., Random Erasing, AAAI 2020, section 3)."""
    for _ in range(_ERASE_TRIES):
        area = size * size * draws.uniform(*_ERASE_AREA)
        ratio = math.exp(draws.uniform(-_ERASE_RATIO, _ERASE_RATIO))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < height < size and 0 < width < size:
            top, left = draws.integer(size - height + 1), draws.integer(size - width + 1)
            return Box(top=top, left=left, height=height, width=width)
    return None
