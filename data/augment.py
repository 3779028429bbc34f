"""Crops, flips and colour changes of clips, in batches, on the device that trains.

Frames stay uint8 until they are on the device. A crop and its resizing are two matrix products per
clip, one along each axis, with the weights of antialiased bilinear interpolation: videos of different
sizes and crops share one batch, and a flip is a matrix read backwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .specs import AugmentSpec, ClipSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRIES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """What is done to all frames of one clip. The box is in pixels of the video."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    brightness: float = 1.0
    """Factor on every pixel."""
    contrast: float = 1.0
    """Factor on the distance from the clip's mean grey."""


def training_crop(height: int, width: int, augment: AugmentSpec, rng: np.random.Generator) -> Crop:
    """Return a random resized crop (Szegedy et al. 2015), a flip and colour factors from `rng`."""
    top, left, crop_height, crop_width = _random_box(height, width, augment, rng)
    return Crop(
        top=top,
        left=left,
        height=crop_height,
        width=crop_width,
        flip=bool(rng.random() < augment.flip),
        brightness=1 + augment.brightness * rng.uniform(-1, 1),
        contrast=1 + augment.contrast * rng.uniform(-1, 1),
    )


def centre_crop(height: int, width: int, clip: ClipSpec) -> Crop:
    """Return the centre square of an evaluation, `crop_fraction` of the short side wide."""
    side = max(1, round(min(height, width) * clip.crop_fraction))
    return Crop(top=(height - side) // 2, left=(width - side) // 2, height=side, width=side)


def apply_crops(frames: torch.Tensor, crops: Sequence[Crop], clip: ClipSpec) -> torch.Tensor:
    """Return normalised clips of the size that `clip` asks for.

    Args:
        frames: uint8 (N, T, H, W, 3), the box of each crop in the upper left corner; what lies outside of a
            box is ignored.
        crops: N crops.

    Returns:
        float32 (N, 3, T, size, size) on the device of `frames`: `(pixel / 255 - mean) / std`.
    """
    # Weights and pixels must not be rounded when a caller trains under autocast.
    with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
        resized = _resize(frames, crops, clip.size)
        return _normalise(_recolour(resized, crops), clip)


def _resize(frames: torch.Tensor, crops: Sequence[Crop], size: int) -> torch.Tensor:
    """Return the boxes of `frames`, flipped where asked, as float32 (N, 3, T, size, size)."""
    n, t, height, width, _ = frames.shape
    device = frames.device
    rows = _resize_weights([crop.height for crop in crops], height, size)
    columns = _resize_weights([crop.width for crop in crops], width, size)
    for number, crop in enumerate(crops):
        if crop.flip:
            columns[number] = columns[number, ::-1]
    # (N, 1, size, H) @ (N, T, H, W * 3), then columns last so that one product does all rows.
    pixels = frames.reshape(n, t, height, width * 3).to(torch.float32)
    tall = torch.matmul(torch.from_numpy(rows).to(device)[:, None], pixels)
    wide = tall.reshape(n, t, size, width, 3).permute(0, 4, 1, 2, 3).reshape(n, -1, width)
    clips = torch.bmm(wide, torch.from_numpy(columns).to(device).transpose(1, 2))
    return clips.reshape(n, 3, t, size, size)


def _random_box(height: int, width: int, augment: AugmentSpec, rng: np.random.Generator) -> tuple[int, int, int, int]:
    widest = math.log(augment.ratio_max)
    for _ in range(_TRIES):
        area = height * width * rng.uniform(augment.scale_min, augment.scale_max)
        ratio = math.exp(rng.uniform(-widest, widest))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return top, left, crop_height, crop_width
    # No box of that area fits: the largest centre box whose ratio is allowed.
    crop_width = min(width, round(height * augment.ratio_max))
    crop_height = min(height, round(width * augment.ratio_max))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _resize_weights(lengths: Sequence[int], canvas: int, size: int) -> NDArray[np.float32]:
    """Return (N, size, canvas): how the first `lengths[n]` pixels make `size` new ones.

    A triangle filter as wide as a new pixel when shrinking and as an old one when enlarging, which is what
    `torch.nn.functional.interpolate(mode="bilinear", antialias=True)` computes.
    """
    length = np.asarray(lengths, np.float32)[:, None, None]
    scale = length / size
    centre = (np.arange(size, dtype=np.float32)[:, None] + 0.5) * scale
    position = np.arange(canvas, dtype=np.float32) + 0.5
    weights = np.maximum(0, 1 - np.abs(position - centre) / np.maximum(scale, 1))
    weights *= position < length
    weights /= weights.sum(axis=2, keepdims=True)
    return weights.astype(np.float32)


def _recolour(clips: torch.Tensor, crops: Sequence[Crop]) -> torch.Tensor:
    """Change brightness and contrast of clips (N, 3, T, H, W) in 0..255."""
    if all(crop.brightness == 1 and crop.contrast == 1 for crop in crops):
        return clips
    shape = (len(crops), 1, 1, 1, 1)
    contrast = torch.tensor([crop.contrast for crop in crops], dtype=torch.float32).view(shape)
    brightness = torch.tensor([crop.brightness for crop in crops], dtype=torch.float32).view(shape)
    grey = clips.mean(dim=(1, 2, 3, 4), keepdim=True)
    clips = (clips - grey) * contrast.to(clips.device) + grey
    return (clips * brightness.to(clips.device)).clamp_(0, 255)


def _normalise(clips: torch.Tensor, clip: ClipSpec) -> torch.Tensor:
    shape = (1, 3, 1, 1, 1)
    mean = torch.tensor(clip.mean, dtype=torch.float32, device=clips.device).view(shape)
    std = torch.tensor(clip.std, dtype=torch.float32, device=clips.device).view(shape)
    return (clips - mean * 255) / (std * 255)
