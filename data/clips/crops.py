"""Which box of the frames a clip shows: pure functions of the frame's size and of seeded draws.

| kind of crop | box | after |
| --- | --- | --- |
| `random_resized` | area and aspect ratio drawn, anywhere | Szegedy et al., CVPR 2015 |
| `multi_scale` | sides drawn from `SIDES` of the short side, no two steps apart; one of 13 places | TSN, ECCV 2016 |
| `corner` | square, side drawn from `SIDES` of the short side; a corner or the centre | TSN, ECCV 2016 |
| `short_side` | square anywhere, of the short side over a factor drawn | SlowFast, ICCV 2019 |
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import InvalidSpecError
from ..seeding import Draws
from ..specs import AugmentSpec
from ..specs.augment import SHORTEST_SIDE
from ..stores.protocol import Box

CROPS = (1, 3, 5, 10)
"""Crops that a view can be seen in."""
SIDES = (1.0, 0.875, 0.75, 0.66)
"""Sides of multi-scale and corner crops, as shares of the short side (TSN, ECCV 2016)."""
_TRIES = 10
_FIVE = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
_THIRTEEN = (*_FIVE, (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Places (down, right) in quarters of the room that the box leaves."""


def training_box(height: int, width: int, augment: AugmentSpec, draws: Draws) -> Box:
    """Return a random box of a frame, as `augment.crop` says."""
    return _KINDS[augment.crop](height, width, augment, draws)


def view_boxes(height: int, width: int, crops: int, fraction: float) -> list[tuple[Box, bool]]:
    """Return the boxes of an evaluation, and whether each is flipped.

    One: the centre square, `fraction` of the short side wide. Three: squares of the whole short side at both ends
    and in the middle of the long one. Five: the four corners and the centre, as large as the one; ten: these, and
    all of them flipped.
    """
    if crops not in CROPS:
        raise InvalidSpecError(f"crops is {crops}; it must be one of {CROPS}")
    short = min(height, width)
    side = short if crops == 3 else max(1, round(short * fraction))
    if crops == 1:
        return [(_centre(height, width, side), False)]
    if crops == 3:
        return [(_at(height, width, side, side, place), False) for place in _along(height, width)]
    five = [_at(height, width, side, side, place) for place in _FIVE[:4]] + [_centre(height, width, side)]
    return [(box, flip) for flip in (False, True)[: crops // 5] for box in five]


def _random_resized(height: int, width: int, augment: AugmentSpec, draws: Draws) -> Box:
    widest = math.log(augment.ratio_max)
    for _ in range(_TRIES):
        area = height * width * draws.uniform(augment.scale_min, 1.0)
        ratio = math.exp(draws.uniform(-widest, widest))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return _anywhere(height, width, box_height, box_width, draws)
    # No box of that area fits: the largest centre box whose ratio is allowed.
    box_width = min(width, round(height * augment.ratio_max))
    box_height = min(height, round(width * augment.ratio_max))
    return Box(top=(height - box_height) // 2, left=(width - box_width) // 2, height=box_height, width=box_width)


def _multi_scale(height: int, width: int, augment: AugmentSpec, draws: Draws) -> Box:
    sides = _sides(height, width)
    steps = range(len(sides))
    pairs = [(one, other) for one in steps for other in steps if abs(one - other) <= 1]
    down, across = pairs[draws.integer(len(pairs))]
    return _at(height, width, sides[down], sides[across], _THIRTEEN[draws.integer(len(_THIRTEEN))])


def _corner(height: int, width: int, augment: AugmentSpec, draws: Draws) -> Box:
    sides = _sides(height, width)
    side = sides[draws.integer(len(sides))]
    return _at(height, width, side, side, _FIVE[draws.integer(len(_FIVE))])


def _short_side(height: int, width: int, augment: AugmentSpec, draws: Draws) -> Box:
    factor = draws.uniform(SHORTEST_SIDE, augment.short_side_max)
    side = max(1, round(min(height, width) / factor))
    return _anywhere(height, width, side, side, draws)


_KINDS: dict[str, Callable[[int, int, AugmentSpec, Draws], Box]] = {
    "random_resized": _random_resized,
    "multi_scale": _multi_scale,
    "corner": _corner,
    "short_side": _short_side,
}


def _sides(height: int, width: int) -> list[int]:
    return [max(1, int(min(height, width) * scale)) for scale in SIDES]


def _anywhere(height: int, width: int, box_height: int, box_width: int, draws: Draws) -> Box:
    top, left = draws.integer(height - box_height + 1), draws.integer(width - box_width + 1)
    return Box(top=top, left=left, height=box_height, width=box_width)


def _along(height: int, width: int) -> list[tuple[int, int]]:
    """Return the ends and the middle of the long side, as places."""
    return [(0, 0), (2, 0), (4, 0)] if height > width else [(0, 0), (0, 2), (0, 4)]


def _at(height: int, width: int, box_height: int, box_width: int, place: tuple[int, int]) -> Box:
    down, right = place
    # Rounded up, so that the middle of three crops is where SlowFast's tests have it.
    top, left = math.ceil((height - box_height) * down / 4), math.ceil((width - box_width) * right / 4)
    return Box(top=top, left=left, height=box_height, width=box_width)


def _centre(height: int, width: int, side: int) -> Box:
    return Box(top=(height - side) // 2, left=(width - side) // 2, height=side, width=side)
