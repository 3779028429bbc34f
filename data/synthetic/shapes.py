"""A generated data set of images: class folders of shapes, on the sides `train` and `test`.

Colour, place, size, angle and background are drawn independently of the class, so that the shape alone tells it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from ..errors import DatasetError, InvalidSpecError
from ..progress import Progress
from ..reading.images import encode_jpeg
from ..seeding import generator

if TYPE_CHECKING:
    from ..arrays import ByteArray

_OVERSAMPLED: Final = 4
"""Shapes are drawn so many times as large, and averaged: their edges are smooth."""
_TEST_SHARE: Final = 4
"""One in so many images is on the test side."""
_QUALITY: Final = 95
_SETTINGS_FILE: Final = "shapes.json"


def _polygon(corners: int, *, inner: float = 1.0) -> list[tuple[float, float]]:
    """Return the corners of a regular polygon, or of a star whose every second corner is at `inner`, on a circle."""
    radii = [1.0, inner] if inner < 1 else [1.0]
    angles = [2 * np.pi * place / (corners * len(radii)) for place in range(corners * len(radii))]
    return [
        (float(radii[place % len(radii)] * np.cos(angle)), float(radii[place % len(radii)] * np.sin(angle)))
        for place, angle in enumerate(angles)
    ]


SHAPES: Final[Mapping[str, Callable[[], list[tuple[float, float]]]]] = MappingProxyType(
    {
        "Circle": lambda: _polygon(64),
        "Triangle": lambda: _polygon(3),
        "Square": lambda: _polygon(4),
        "Star": lambda: _polygon(5, inner=0.4),
    }
)
"""The corners of each class, around the origin, at most 1 from it."""


def make_shapes(
    root: Path, *, images: int = 60, size: int = 64, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Return `root`, after writing a data set of shapes below it: `train/<Class>/` and `test/<Class>/`, JPEG.

    The same arguments give the same bytes. An existing set is kept if it was made with the same arguments. The folder
    gets its name only when it is complete.

    Args:
        images: of each class; a quarter of them is on the test side.
        size: width and height in pixels.

    Raises:
        InvalidSpecError: an argument is out of range.
        DatasetError: `root` contains other files.
    """
    if not 8 <= images <= 100_000 or not 16 <= size <= 1024:
        raise InvalidSpecError(f"images is {images} and size {size}; give 8 to 100000 images of 16 to 1024 pixels")
    root = Path(root)
    settings = json.dumps({"images": images, "size": size, "seed": seed, "version": 1}) + "\n"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        made = root / _SETTINGS_FILE
        if made.is_file() and made.read_text(encoding="utf-8") == settings:
            return root
        raise DatasetError(f"{root} already holds something else; delete it or name a folder that does not exist yet")
    aside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for done, name in enumerate(SHAPES, start=1):
            for number in range(images):
                side = "test" if number % _TEST_SHARE == 0 else "train"
                file = aside / side / name / f"{number:05d}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode_jpeg(draw_shape(name, number, size=size, seed=seed), _QUALITY))
            if progress is not None:
                progress("make demo", done, len(SHAPES))
        (aside / _SETTINGS_FILE).write_text(settings, encoding="utf-8")
        if root.is_dir():
            root.rmdir()  # found empty above
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return root


def draw_shape(name: str, number: int, *, size: int, seed: int) -> ByteArray:
    """Return the image (size, size, 3) of one shape."""
    rng = generator("shape", seed, name, number)
    coarse = rng.integers(40, 216, (4, 4, 3), dtype=np.uint8)
    background = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    radius = float(rng.uniform(0.22, 0.4)) * size
    centre = rng.uniform(radius, size - radius, 2)
    angle = float(rng.uniform(0, 2 * np.pi))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (np.array(SHAPES[name]()) @ turn.T * radius + centre) * _OVERSAMPLED
    mask = np.zeros((size * _OVERSAMPLED, size * _OVERSAMPLED), np.uint8)
    cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
    share = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)[..., None] / 255
    brighter = float(background.mean()) < 128
    colour = rng.integers(170, 256, 3) if brighter else rng.integers(0, 86, 3)
    noise = rng.normal(0, 6, (size, size, 3))
    picture = background * (1 - share) + colour * share + noise
    return np.clip(picture, 0, 255).astype(np.uint8)
