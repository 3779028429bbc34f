"""Cutting, resizing, changing and normalising of clips on the device that trains.

Frames come as bytes and stay bytes through resizing, flips, RandAugment and colours; normalising makes them floats.
Only optical flow turns into floats before, since a flip and a turn change its vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from ..specs import ClipSpec
from .augment import GEOMETRIC, Change, Operation
from .batched import Ship, changed, constant, parts
from .batched_flow import changed_flow
from .colour import adjust, recolour

Empty = Callable[[tuple[int, ...]], Tensor]
"""Returns an uninitialised float32 tensor of a shape."""
FLOW_ZERO = 127.5
"""The value of no motion on the scale of flow bytes; no byte has it exactly."""
FLOW_STD = 0.226
"""Flow bytes are scaled as TSN and its successors do it: `(byte / 255 - 0.5) / 0.226`."""


def rgb_clips(
    boxes: Sequence[Tensor],
    changes: Sequence[Change],
    clip: ClipSpec,
    *,
    empty: Empty | None = None,
    ship: Ship | None = None,
) -> Tensor:
    """Return normalised clips of the size that `clip` asks for.

    Args:
        boxes: for each clip, the box of its change in all its frames: uint8 (T, box height, box width, 3).
        empty: gives memory for the result; torch's allocator by default.
        ship: sends numbers to a GPU, where the clips are changed together (`batched`); by default one by one.

    Returns:
        float32 (N, 3, T, size, size) on the device of `boxes`: `(pixel / 255 - mean) / std`; 0 where erased.
    """
    shape = (len(boxes), 3, len(boxes[0]), clip.size, clip.size)
    out = _empty(shape, boxes[0].device) if empty is None else empty(shape)
    fill = [255 * mean for mean in clip.mean]
    mean, std = (
        constant(tuple(255 * value for value in values), out.device).view(-1, 1, 1, 1)
        for values in (clip.mean, clip.std)
    )
    # Pixels must not be rounded when a caller trains under autocast.
    with torch.no_grad(), torch.autocast(out.device.type, enabled=False):
        if ship is not None:
            for some in parts(len(boxes), math.prod(shape[1:])):
                pictures = torch.stack([resized(box, clip.size) for box in boxes[some]])
                pictures = changed(pictures, changes[some], fill=fill, ship=ship)
                out[some].copy_(pictures.transpose(1, 2)).sub_(mean).div_(std)
            return _erased(out, changes)
        for target, box, change in zip(out, boxes, changes, strict=True):
            pictures = resized(box, clip.size)
            if change.flip:
                pictures = pictures.flip(-1)
            for operation in change.operations:
                moves = operation.name in GEOMETRIC
                pictures = _moved(pictures, operation, change, fill) if moves else adjust(pictures, operation)
            if change.recolours:
                pictures = recolour(pictures, change)
            # Clip by clip, while it is in the processor's cache.
            target.copy_(pictures.transpose(0, 1)).sub_(mean).div_(std)
        return _erased(out, changes)


def flow_clips(
    boxes: Sequence[Tensor],
    stacks: Tensor,
    changes: Sequence[Change],
    clip: ClipSpec,
    *,
    empty: Empty | None = None,
    ship: Ship | None = None,
) -> Tensor:
    """Return normalised flow of the size that `clip` asks for.

    Vectors change with the picture: resizing scales them, a flip negates x, a rotation rotates them.

    Args:
        boxes: for each clip, the box of its change in the fields that it needs: uint8 (U, box height, box width, 2).
        stacks: for each clip, which of its U fields stand for each frame: int64 (N, T, pairs).
        empty: gives memory for the result; torch's allocator by default.
        ship: sends numbers to a GPU, where the clips are changed together (`batched_flow`); by default one by one.

    Returns:
        float32 (N, 2 * pairs, T, size, size): x and y of the first field of every stack, of the second, and so on;
        0 means no motion.
    """
    _, frames, pairs = stacks.shape
    shape = (len(boxes), 2 * pairs, frames, clip.size, clip.size)
    out = _empty(shape, boxes[0].device) if empty is None else empty(shape)
    with torch.no_grad(), torch.autocast(out.device.type, enabled=False):
        if ship is not None:
            for some in parts(len(boxes), math.prod(shape[1:])):
                counts = [len(box) for box in boxes[some]]
                fields = _vectors(torch.cat([resized(box, clip.size) for box in boxes[some]]), clip)
                fields = changed_flow(fields, counts, changes[some], ship=ship)
                first = ship(torch.tensor([0, *accumulate(counts[:-1])]))
                out[some].copy_(fields[stacks[some] + first.view(-1, 1, 1)].flatten(2, 3).transpose(1, 2))
            return _erased(out.div_(255 * FLOW_STD), changes)
        for target, box, stack, change in zip(out, boxes, stacks, changes, strict=True):
            fields = _fields(box, change, clip)
            target.copy_(fields[stack].flatten(1, 2).transpose(0, 1)).div_(255 * FLOW_STD)
        return _erased(out, changes)


def resized(frames: Tensor, size: int) -> Tensor:
    """Return uint8 frames (T, C, size, size) of (T, H, W, C), by antialiased bilinear interpolation."""
    pictures = frames.permute(0, 3, 1, 2)
    if pictures.shape[2:] == (size, size):
        return pictures
    if frames.device.type == "cpu":
        # In integers; for three channels that are adjacent in memory, as here, a dozen times faster than in floats.
        return interpolate(pictures, size=(size, size), mode="bilinear", antialias=True)
    smooth = interpolate(pictures.float(), size=(size, size), mode="bilinear", antialias=True)
    return smooth.round_().clamp_(0, 255).to(torch.uint8)


def warped(pictures: Tensor, operation: Operation, fill: Sequence[float]) -> Tensor:
    """Return pictures (T, C, H, W) sheared, moved or rotated about their centre; `fill` colours uncovered pixels."""
    # Costs half a second to import, and only RandAugment needs it.
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    name, amount = operation.name, operation.amount
    side = pictures.shape[-1]
    # torchvision's shears go the other way.
    sheared = -math.degrees(math.atan(amount))
    moved: Tensor = affine(
        pictures,
        angle=amount if name == "rotate" else 0.0,
        translate=[amount * side * (name == "translate_x"), amount * side * (name == "translate_y")],
        scale=1.0,
        shear=[sheared * (name == "shear_x"), sheared * (name == "shear_y")],
        interpolation=InterpolationMode.BILINEAR,
        fill=list(fill),
    )
    return moved


def _moved(pictures: Tensor, operation: Operation, change: Change, fill: Sequence[float]) -> Tensor:
    return (warped_smoothly if change.interpolation == "bicubic" else warped)(pictures, operation, fill)


def warped_smoothly(pictures: Tensor, operation: Operation, fill: Sequence[float]) -> Tensor:
    """Return uint8 pictures (T, C, S, S) changed as :func:`warped` does it, by bicubic interpolation (a = -0.75).

    torchvision's functions interpolate pictures in tensors no better than bilinearly.
    """
    theta = torch.tensor(operation.places(), device=pictures.device)
    grid = affine_grid(theta[None], [1, 1, *pictures.shape[2:]], align_corners=False)
    colour = torch.tensor(fill, device=pictures.device).view(1, -1, 1, 1)
    # Around the difference to the fill, zeros are what lies outside.
    moved = grid_sample(
        pictures.float() - colour, grid.expand(len(pictures), -1, -1, -1), mode="bicubic", align_corners=False
    )
    return (moved + colour).round_().clamp_(0, 255).to(torch.uint8)


def _fields(box: Tensor, change: Change, clip: ClipSpec) -> Tensor:
    """Return the fields of a clip as vectors (U, 2, size, size) around 0, in bytes of the prepared flow."""
    size = clip.size
    fields = _vectors(resized(box, size), clip)
    if change.flip:
        fields = fields.flip(-1)
    height, width = box.shape[1:3]
    across = -size / width if change.flip else size / width
    fields[:, 0].mul_(across)
    fields[:, 1].mul_(size / height)
    for operation in change.operations:
        if operation.name in GEOMETRIC:
            x, y = warped(fields, operation, [0.0, 0.0]).unbind(1)
            (xx, xy), (yx, yy) = operation.turn()
            fields = torch.stack((xx * x + xy * y, yx * x + yy * y), dim=1)
    return fields


def _vectors(fields: Tensor, clip: ClipSpec) -> Tensor:
    """Return fields of bytes (U, 2, size, size) as floats around 0."""
    vectors = fields.float().sub_(FLOW_ZERO)
    return vectors.sub_(vectors.mean((2, 3), keepdim=True)) if clip.flow_centring == "mean" else vectors


def _erased(clips: Tensor, changes: Sequence[Change]) -> Tensor:
    for target, change in zip(clips, changes, strict=True):
        if change.erase is not None:
            box = change.erase
            target[..., box.top : box.top + box.height, box.left : box.left + box.width] = 0
    return clips


def _empty(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=device)
