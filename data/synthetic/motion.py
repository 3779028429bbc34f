"""Rendering one textured shape that moves over a background: the scenes of the generated set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..arrays import ByteArray, FloatArray


_TABLE_SIDE = 96
"""Side of a sprite's lookup table, a few times its side on the screen."""
_SCALE_MIN, _SCALE_MAX = 0.55, 1.0
"""Range of the sprite's scale; growing wraps from the largest to the smallest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """The motion of a class per frame, in units of the screen; all else is drawn per clip."""

    slide: tuple[float, float] = (0.0, 0.0)
    """Widths and heights of the screen per frame."""
    spin: float = 0.0
    """Turns per frame, positive is clockwise on the screen."""
    growth: float = 0.0
    """Periods of the scale's range per frame."""
    sway: float = 0.0
    """Oscillations per frame; the amplitude is the same in all classes that sway."""


MOTIONS: dict[str, Motion] = {
    "SlideLeft": Motion(slide=(-0.035, 0.0)),
    "SlideRight": Motion(slide=(0.035, 0.0)),
    "SlideUp": Motion(slide=(0.0, -0.035)),
    "SlideDown": Motion(slide=(0.0, 0.035)),
    "SpinClockwise": Motion(spin=0.03),
    "SpinCounter": Motion(spin=-0.03),
    "Grow": Motion(growth=0.05),
    "Shrink": Motion(growth=-0.05),
    "SwaySlow": Motion(sway=0.04),
    "SwayFast": Motion(sway=0.12),
}
"""Every class that can be generated, in pairs.

Reversing time swaps the classes of a pair, except the last one, whose two classes differ in speed alone.
"""

_SWAY_AMPLITUDE = 0.12
_SPEED_JITTER = 0.25
_NOISE = 4.0
_DRIFT = 0.006


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """The random quantities of a clip that do not depend on its class."""

    width: int
    height: int
    sprite: FloatArray
    """Lookup table (96, 96, 4): premultiplied RGB and coverage."""
    radius: float
    """Of the sprite at scale 1, in pixels."""
    position: tuple[float, float]
    angle: float
    phase: float
    """Of the scale in its range, from 0 to 1."""
    sway_phase: float
    sway_axis: float
    speed: float
    drift: tuple[float, float]
    """Movement of the background in pixels per frame."""
    drift_start: tuple[float, float]
    gain: float
    flipped: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, *, width: int, height: int) -> Scene:
        direction = rng.uniform(0, 2 * np.pi)
        drift = rng.uniform(0, _DRIFT) * height
        return cls(
            width=width,
            height=height,
            sprite=_sprite_table(rng),
            radius=rng.uniform(0.30, 0.38) * min(width, height),
            position=(rng.uniform(0, width), rng.uniform(0, height)),
            angle=rng.uniform(0, 2 * np.pi),
            phase=rng.uniform(0, 1),
            sway_phase=rng.uniform(0, 2 * np.pi),
            sway_axis=rng.uniform(0, np.pi),
            speed=rng.uniform(1 - _SPEED_JITTER, 1 + _SPEED_JITTER),
            drift=(drift * np.cos(direction), drift * np.sin(direction)),
            drift_start=(rng.uniform(0, width), rng.uniform(0, height)),
            gain=rng.uniform(0.85, 1.1),
            flipped=bool(rng.integers(2)),
        )


def background_texture(rng: np.random.Generator, *, width: int, height: int) -> FloatArray:
    """Return a smooth coloured texture (H, W, 3) in 0..255 that repeats without a seam."""
    fy = np.fft.fftfreq(height)[:, None] * height
    fx = np.fft.fftfreq(width)[None, :] * width
    falloff = np.exp(-(fx**2 + fy**2) / (2 * 3.0**2))[..., None]
    noise = np.fft.fft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
    texture = np.real(np.fft.ifft2(noise * falloff, axes=(0, 1)))
    texture /= texture.std()
    base = rng.uniform(70, 140, size=3)
    return np.clip(base + 18 * texture, 0, 255).astype(np.float32)


def render(
    scene: Scene,
    motion: Motion,
    background: FloatArray,
    *,
    n_frames: int,
    rng: np.random.Generator,
) -> ByteArray:
    """Return the frames (T, H, W, 3) of a scene in which the sprite makes `motion`."""
    times = np.arange(n_frames, dtype=np.float32)
    x, y = _positions(scene, motion, times)
    angle = scene.angle + 2 * np.pi * motion.spin * scene.speed * times
    phase = (scene.phase + motion.growth * scene.speed * times) % 1.0
    scale = scene.radius * _SCALE_MIN * (_SCALE_MAX / _SCALE_MIN) ** phase
    frames = np.empty((n_frames, scene.height, scene.width, 3), np.uint8)
    grain = rng.normal(0, _NOISE, size=(8, scene.height, scene.width, 1)).astype(np.float32)
    for t in range(n_frames):
        picture = _shifted(background, scene, t)
        sprite = _placed(scene, x[t], y[t], angle[t], scale[t])
        picture = picture * (1 - sprite[..., 3:]) + sprite[..., :3]
        # A few noise fields, shifted at random, are random enough and much cheaper.
        shift = tuple(rng.integers(0, (scene.height, scene.width)))
        picture = picture * scene.gain + np.roll(grain[rng.integers(8)], shift, axis=(0, 1))
        frames[t] = np.clip(picture + 0.5, 0, 255)
    return frames


def _positions(scene: Scene, motion: Motion, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    swing = np.sin(scene.sway_phase + 2 * np.pi * motion.sway * scene.speed * times)
    swing *= _SWAY_AMPLITUDE * scene.height * (motion.sway != 0)
    x = scene.position[0] + motion.slide[0] * scene.width * scene.speed * times
    y = scene.position[1] + motion.slide[1] * scene.height * scene.speed * times
    return x + swing * np.cos(scene.sway_axis), y + swing * np.sin(scene.sway_axis)


def _shifted(background: FloatArray, scene: Scene, t: int) -> FloatArray:
    dx = round(scene.drift_start[0] + scene.drift[0] * t)
    dy = round(scene.drift_start[1] + scene.drift[1] * t)
    moved = np.roll(background, (dy, dx), axis=(0, 1))
    return moved[:, ::-1] if scene.flipped else moved


def _placed(scene: Scene, x: float, y: float, angle: float, scale: float) -> FloatArray:
    """Return the sprite (H, W, 4) at a place on the torus, turned and scaled."""
    width, height = scene.width, scene.height
    dx = (np.arange(width, dtype=np.float32) + 0.5 - x + width / 2) % width - width / 2
    dy = (np.arange(height, dtype=np.float32) + 0.5 - y + height / 2) % height - height / 2
    cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    u = dx[None, :] * cos + dy[:, None] * sin
    v = dy[:, None] * cos - dx[None, :] * sin
    middle = _TABLE_SIDE / 2
    column = np.clip(u * middle + middle, 0, _TABLE_SIDE - 1).astype(np.intp)
    row = np.clip(v * middle + middle, 0, _TABLE_SIDE - 1).astype(np.intp)
    return scene.sprite[row, column]


def _sprite_table(rng: np.random.Generator) -> FloatArray:
    """Return a two-coloured blob; its outline and its halves show its rotation."""
    axis = (np.arange(_TABLE_SIDE, dtype=np.float32) + 0.5) / _TABLE_SIDE * 2 - 1
    u, v = axis[None, :], axis[:, None]
    radius, theta = np.hypot(u, v), np.arctan2(v, u)
    outline = np.full_like(theta, 0.72)
    for k in (1, 2, 3):
        outline += rng.uniform(0.03, 0.09) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    coverage = np.clip((np.minimum(outline, 0.97) - radius) / 0.06, 0, 1)
    bright, dark = rng.uniform(170, 250, size=3), rng.uniform(5, 70, size=3)
    turn = rng.uniform(0, 2 * np.pi)
    side = np.clip((u * np.cos(turn) + v * np.sin(turn)) / 0.08, -1, 1) * 0.5 + 0.5
    stripes = 12 * np.sin(9 * (u * np.sin(turn) - v * np.cos(turn)) + rng.uniform(0, 6))
    colour = dark + (bright - dark) * side[..., None] + stripes[..., None]
    table = np.concatenate([colour * coverage[..., None], coverage[..., None]], axis=-1)
    return table.astype(np.float32)
