"""The videos of the tables: generated ones that differ in motion or in colour, and those of real people."""

from __future__ import annotations

import colorsys
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from data.arrays import FloatArray
from data.seeding import generator
from data.synthetic.dataset import make_demo_dataset, write_video
from data.synthetic.motion import Motion, Scene, background_texture, render

PEOPLE: Final = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "weizmann_mini"
"""Ten actions of the Weizmann data set in the layout of UCF101, next to the checkout."""

HUES: Final[Mapping[str, float]] = {"Red": 0.0, "Lime": 0.25, "Cyan": 0.5, "Violet": 0.75}
"""The classes that differ in appearance: the middle of their hues, in turns."""
_HUE_SPREAD: Final = 0.06
"""Standard deviation of the hue, in turns: one clip in 25 looks more like another class."""
_GROUPS, _TEST_GROUPS, _CLIPS = 16, 9, 6
_FRAMES, _WIDTH, _HEIGHT = 16, 48, 40
_TABLE_SIDE = 96
_DEPTH = 0.22
"""How deep the outline is notched, in radii."""
_SEED = 1


def motion_videos(folder: Path) -> Path:
    """Return the root of a set whose classes differ in the direction of motion alone; make it first if need be."""
    return make_demo_dataset(
        folder / "motion",
        classes=("SlideLeft", "SlideRight", "SlideUp", "SlideDown"),
        groups=10,
        clips_per_group=_CLIPS,
        frames=(24, 40),
        size=(_WIDTH, _HEIGHT),
    )


def people_videos(folder: Path) -> Path:
    """Return the root of the set of real people, which is not made here."""
    return PEOPLE


class _Clip(NamedTuple):
    colour: str
    group: int
    number: int

    @property
    def file(self) -> str:
        """Path below `videos/`."""
        return f"{self.colour}/v_{self.colour}_g{self.group:02d}_c{self.number:02d}.avi"


def colour_videos(folder: Path) -> Path:
    """Return the root of a set whose classes differ in the hue of a moving thing; make it first if need be."""
    root = folder / "appearance"
    if root.is_dir():
        return root
    aside = folder / "appearance.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    for clip in _clips():
        path = aside / "videos" / clip.file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, _frames(clip))
    _write_lists(aside / "annotations" / "ucf101_splits")
    aside.rename(root)
    return root


def _clips() -> Iterator[_Clip]:
    for colour in HUES:
        for group in range(1, _GROUPS + 1):
            for number in range(1, _CLIPS + 1):
                yield _Clip(colour, group, number)


def _frames(clip: _Clip) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rng = generator("colour", _SEED, *clip)
    background = background_texture(generator("colour group", _SEED, clip.group), width=_WIDTH, height=_HEIGHT)
    scene = replace(
        Scene.draw(rng, width=_WIDTH, height=_HEIGHT),
        sprite=_sprite(HUES[clip.colour] + _HUE_SPREAD * rng.standard_normal(), rng),
        radius=rng.uniform(0.45, 0.65) * _HEIGHT,
    )
    direction = rng.uniform(0, 2 * np.pi)
    motion = Motion(slide=(0.02 * np.cos(direction), 0.02 * np.sin(direction)), spin=float(rng.uniform(-0.02, 0.02)))
    return render(scene, motion, background, n_frames=_FRAMES, rng=rng)


def _sprite(hue: float, rng: np.random.Generator) -> FloatArray:
    """Return premultiplied RGB and coverage (96, 96, 4) of a thing of this hue, with two to six lobes."""
    axis = (np.arange(_TABLE_SIDE, dtype=np.float32) + 0.5) / _TABLE_SIDE * 2 - 1
    u, v = axis[None, :], axis[:, None]
    outline = (1 - _DEPTH) * 0.95 + _DEPTH * np.cos(rng.integers(2, 7) * np.arctan2(v, u))
    coverage = np.clip((outline - np.hypot(u, v)) / 0.06, 0, 1)[..., None]
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)))
    return np.concatenate([colour * coverage, coverage], axis=-1).astype(np.float32)


def _write_lists(folder: Path) -> None:
    folder.mkdir(parents=True)
    label = {name: number for number, name in enumerate(HUES, start=1)}
    train = [f"{clip.file} {label[clip.colour]}" for clip in _clips() if clip.group > _TEST_GROUPS]
    test = [clip.file for clip in _clips() if clip.group <= _TEST_GROUPS]
    names = [f"{number} {name}" for name, number in label.items()]
    for file, lines in (("classInd", names), ("trainlist01", train), ("testlist01", test)):
        (folder / f"{file}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
