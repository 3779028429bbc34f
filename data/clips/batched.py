"""Changes to the pictures of a whole batch at once: what `pixels` and `colour` do clip by clip, in few kernels.

For GPUs, where a kernel for each step of each clip costs more than its work, and where a number that is sent alone
waits for all that is queued. All numbers of a batch are sent together. A CPU changes clip by clip, while a clip is in
its cache. Both draw the same, and their pixels differ by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from ..specs import Interpolation
from .augment import GEOMETRIC, Change, Operation

Ship = Callable[[Tensor], Tensor]
"""Copies a small tensor to the device without waiting for it."""
MOST_VALUES = 2**25
"""Pixels that are changed at once: some of the steps hold a few numbers for each, of 4 or 8 bytes."""
_GREY = (0.2989, 0.587, 0.114)
"""torchvision's shares of red, green and blue."""

Work = Callable[[Tensor, Tensor], Tensor]
"""Of the pictures (n, ...) of some clips and the numbers (n, k) of each, the changed pictures."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of some clips of a batch."""

    work: Work
    clips: list[int] = field(default_factory=list)
    """Their places in the batch, ascending."""
    numbers: list[Sequence[float]] = field(default_factory=list)

    def add(self, clip: int, *numbers: float) -> None:
        """Have a clip changed, by so many numbers."""
        self.clips.append(clip)
        self.numbers.append(numbers)


def changed(pictures: Tensor, changes: Sequence[Change], *, fill: Sequence[float], ship: Ship) -> Tensor:
    """Return pictures with their flips, operations and colours, in this order; those that are given may change.

    Args:
        pictures: uint8 (N, T, 3, S, S), cut and resized.
        fill: the colour (3) of what an operation that moves pixels uncovers.
    """
    return applied(pictures, _steps(changes, fill), ship=ship)


def applied(pictures: Tensor, steps: Iterable[Step], *, ship: Ship) -> Tensor:
    """Return pictures (N, ...) after all steps, in this order; those that are given may change."""
    steps = [step for step in steps if step.clips]
    if not steps:
        return pictures
    flat = [number for step in steps for number in (*step.clips, *(n for row in step.numbers for n in row))]
    sent, at = ship(torch.tensor(flat, dtype=torch.float32)), 0
    for step in steps:
        n, columns = len(step.clips), len(step.numbers[0])
        places, numbers = sent[at : at + n], sent[at + n : at + n * (1 + columns)].view(n, columns)
        at += n * (1 + columns)
        if n == len(pictures):
            pictures = step.work(pictures, numbers)
        else:
            index = places.long()
            pictures.index_copy_(0, index, step.work(pictures.index_select(0, index), numbers))
    return pictures


def parts(clips: int, values: int) -> Iterator[slice]:
    """Yield which of `clips`, of so many `values` each, are changed at once."""
    most = max(1, MOST_VALUES // values)
    for start in range(0, clips, most):
        yield slice(start, start + most)


def _steps(changes: Sequence[Change], fill: Sequence[float]) -> Iterator[Step]:
    """Yield the steps in their order; the clips of one step do not need each other's."""
    yield _of(changes, lambda x, _: x.flip(-1), lambda change: () if change.flip else None)
    for position in range(max((len(change.operations) for change in changes), default=0)):
        kinds = {"bilinear": Step(partial(_moved, fill)), "bicubic": Step(partial(_moved_smoothly, fill))}
        kinds |= {name: Step(work) for name, work in _COLOURS.items()}
        for clip, change in enumerate(changes):
            if position < len(change.operations):
                operation = change.operations[position]
                if operation.name != "identity":
                    kind, numbers = _numbers(operation, change.interpolation)
                    kinds[kind].add(clip, *numbers)
        yield from kinds.values()
    yield _of(changes, _brightened, lambda change: (change.brightness,) if change.brightness != 1 else None)
    yield _of(changes, _contrasted, lambda change: (change.contrast,) if change.contrast != 1 else None)
    yield _of(changes, _saturated, lambda change: (change.saturation,) if change.saturation != 1 else None)
    yield _of(changes, _hue_turned, lambda change: (change.hue,) if change.hue != 0 else None)


def _of(changes: Sequence[Change], work: Work, numbers_of: Callable[[Change], Sequence[float] | None]) -> Step:
    step = Step(work)
    for clip, change in enumerate(changes):
        if (numbers := numbers_of(change)) is not None:
            step.add(clip, *numbers)
    return step


def _numbers(operation: Operation, interpolation: Interpolation) -> tuple[str, Sequence[float]]:
    """Return the kind of step that an operation is, and its numbers."""
    if operation.name in GEOMETRIC:
        return interpolation, [number for row in operation.places() for number in row]
    if operation.name == "posterize":
        bits = int(operation.amount)
        return operation.name, [float(((1 << bits) - 1) << (8 - bits))]
    return operation.name, [operation.amount]


def _each(numbers: Tensor) -> Tensor:
    """Return one number for each clip (n, 1), to be used with its pictures."""
    return numbers.view(-1, 1, 1, 1, 1)


def _bytes(pictures: Tensor) -> Tensor:
    """Return floats as bytes; like torchvision's, they are cut off and not rounded."""
    return pictures.clamp_(0, 255).to(torch.uint8)


def _blended(pictures: Tensor, base: Tensor, share: Tensor) -> Tensor:
    return _bytes((pictures * _each(share)).add_(base * (1 - _each(share))))


def _grey(pictures: Tensor) -> Tensor:
    """Return whole grey values, float32 (n, T, 1, S, S)."""
    red, green, blue = pictures.split(1, dim=2)
    grey: Tensor = red.mul(_GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).floor_()
    return grey


def _brightened(pictures: Tensor, amounts: Tensor) -> Tensor:
    return _bytes(pictures * _each(amounts))


def _contrasted(pictures: Tensor, amounts: Tensor) -> Tensor:
    return _blended(pictures, _grey(pictures).mean((1, 2, 3, 4), keepdim=True), amounts)


def _saturated(pictures: Tensor, amounts: Tensor) -> Tensor:
    return _blended(pictures, _grey(pictures), amounts)


def _sharpened(pictures: Tensor, amounts: Tensor) -> Tensor:
    side = pictures.shape[-1]
    if side <= 2:
        return pictures
    out = pictures.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    kernel = constant((1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0), out.device).div(13).view(1, 1, 3, 3)
    blurred = conv2d(out.view(-1, 1, side, side), kernel).round_().view(*pictures.shape[:3], side - 2, side - 2)
    inside = out[..., 1:-1, 1:-1]
    inside.add_(blurred.sub_(inside).mul_(1 - _each(amounts)))
    return _bytes(out)


def _posterized(pictures: Tensor, masks: Tensor) -> Tensor:
    return pictures & _each(masks).to(torch.uint8)


def _solarized(pictures: Tensor, limits: Tensor) -> Tensor:
    return torch.where(pictures >= _each(limits), ~pictures, pictures)


def _autocontrasted(pictures: Tensor, _: Tensor) -> Tensor:
    """Stretch each colour of a clip to all values; one that is the same everywhere stays."""
    floats = pictures.float()
    least, most = (extreme(floats, (1, 3, 4), keepdim=True) for extreme in (torch.amin, torch.amax))
    is_flat = most == least
    scale = torch.where(is_flat, 1.0, (most - least).mul_(1 / 255))
    return _bytes(floats.sub_(torch.where(is_flat, 0.0, least)).div_(scale))


def _equalized(pictures: Tensor, _: Tensor) -> Tensor:
    # Costs half a second to import, and not every training changes colours.
    from torchvision.transforms.v2.functional import equalize

    stacked = pictures.transpose(1, 2)
    found: Tensor = equalize(stacked.flatten(2, 3))
    return found.view(stacked.shape).transpose(1, 2)


def _hue_turned(pictures: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue (Smith, Color Gamut Transform Pairs, 1978); torchvision's function waits for a GPU."""
    red, green, blue = (pictures.float() / 255).unbind(2)
    least, most = torch.minimum(torch.minimum(red, green), blue), torch.maximum(torch.maximum(red, green), blue)
    span = most - least
    divisor = torch.where(span == 0, 1.0, span)
    sector = torch.where(
        most == red,
        (green - blue) / divisor,
        torch.where(most == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = sector + 6 * turns.view(-1, 1, 1, 1)
    places = (constant((5.0, 3.0, 1.0), sector.device).view(3, 1, 1) + sector.unsqueeze(2)).remainder_(6)
    away = torch.minimum(places, 4 - places).clamp_(0, 1)
    colours = most.unsqueeze(2) - span.unsqueeze(2) * away
    return colours.mul_(255 + 1 - 1e-3).to(torch.uint8)


def _grid(pictures: Tensor, rows: Tensor) -> Tensor:
    n, side = len(pictures), pictures.shape[-1]
    return affine_grid(rows.view(n, 2, 3), [n, 1, side, side], align_corners=False)


def _moved(fill: Sequence[float], pictures: Tensor, rows: Tensor) -> Tensor:
    grid, colour = _grid(pictures, rows), constant(tuple(fill), pictures.device).view(3, 1, 1)
    inside = grid_sample(torch.ones_like(grid[:, None, ..., 0]), grid, align_corners=False)[:, :, None]
    found = grid_sample(pictures.flatten(1, 2).float(), grid, align_corners=False).view(pictures.shape)
    return found.sub_(colour).mul_(inside).add_(colour).round_().to(torch.uint8)


def _moved_smoothly(fill: Sequence[float], pictures: Tensor, rows: Tensor) -> Tensor:
    colour = constant(tuple(fill), pictures.device).view(3, 1, 1)
    # Around the difference to the fill, zeros are what lies outside.
    apart = (pictures - colour).flatten(1, 2)
    found = grid_sample(apart, _grid(pictures, rows), mode="bicubic", align_corners=False).view(pictures.shape)
    return _bytes(found.add_(colour).round_())


_COLOURS: dict[str, Work] = {
    "brightness": _brightened,
    "saturation": _saturated,
    "contrast": _contrasted,
    "sharpness": _sharpened,
    "posterize": _posterized,
    "solarize": _solarized,
    "autocontrast": _autocontrasted,
    "equalize": _equalized,
}


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers on the device, sent once: a copy to a GPU waits for the work that is queued there."""
    return torch.tensor(values, device=device)
