"""Choosing the form of a cache, and estimating its size and time before it is built."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..index.records import ClipRecord
from ..stores.database import database_bytes
from ..stores.forms import FORMS

if TYPE_CHECKING:
    from ..stores.build import Recipe

_SAMPLED_CLIPS = 6
_SAMPLED_FRAMES = {3: 48, 2: 6}
"""Frames tried of each clip, by channels; fewer of flow, which may take a second each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The expected size and time of a cache."""

    form: str
    n_clips: int
    n_frames: int
    bytes: int
    exact: bool
    """Whether the bytes are computed from sizes and counts, rather than estimated from a few clips."""
    seconds: float | None
    """Time on all cores, estimated from a few clips; None if none were tried."""
    why: str = ""
    """The reason for a form that was chosen automatically; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """The memory and disk that a machine has for a cache."""

    memory_bytes: int
    free_bytes: int

    @classmethod
    def at(cls, folder: Path) -> Room:
        """Return the memory of this machine and the free disk of `folder`, which need not exist yet."""
        while not folder.is_dir():
            folder = folder.parent
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(memory_bytes=memory, free_bytes=shutil.disk_usage(folder).free)

    @property
    def budget_bytes(self) -> int:
        """Half of the memory, so that frames stay in the page cache, and half of the free disk at most."""
        return max(0, min(self.memory_bytes, self.free_bytes) // 2)

    def without(self, taken_bytes: int, *, on_disk: bool) -> Room:
        """Return the room left by another cache that shares the budget; `on_disk` if it is already built."""
        return Room(
            memory_bytes=self.memory_bytes - 2 * taken_bytes,
            free_bytes=self.free_bytes - (0 if on_disk else taken_bytes),
        )


def estimate(recipe: Recipe, form: str, *, timed: bool = False) -> Estimate:
    """Return the size of a cache of one form: exact for `raw` and `i420`, else estimated from a few clips.

    Args:
        timed: try a few clips to estimate the time, even if the size is known.
    """
    frame_bytes = FORMS[form].frame_bytes
    shapes = [recipe.shape(clip) for clip in recipe.clips]
    tried = _try(recipe, form) if timed or frame_bytes is None else None
    if frame_bytes is not None:
        size = sum(n_frames * frame_bytes(height, width, recipe.channels) for n_frames, height, width in shapes)
    else:
        pixels = sum(n_frames * height * width for n_frames, height, width in shapes)
        size = int(tried.bytes_per_pixel * pixels) if tried is not None else 0
    n_frames = sum(shape[0] for shape in shapes)
    if form == "lmdb":
        size = database_bytes(n_frames, size / max(1, n_frames))
    return Estimate(
        form=form,
        n_clips=len(shapes),
        n_frames=n_frames,
        bytes=size,
        exact=frame_bytes is not None,
        seconds=None if tried is None else tried.seconds_per_frame * n_frames / (os.cpu_count() or 1),
    )


def choose(recipe: Recipe, room: Room, *, timed: bool = False) -> Estimate:
    """Return the form that reads fastest among those that fit into the budget.

    RGB: `raw`, else `i420`, else `jpeg`; if none fits, the smallest form, also considering `tinyvideo`. Flow: `raw`,
    else `jpeg`; if none fits, the smaller one.
    """
    forms = ("raw", "jpeg") if recipe.channels == 2 else ("raw", "i420", "jpeg")
    budget = f"half of the memory and of the free disk, {room.budget_bytes / 1e9:.1f} GB"
    tried = []
    for form in forms:
        found = estimate(recipe, form, timed=timed)
        if found.bytes <= room.budget_bytes:
            return replace(found, why=f"{form} needs {found.bytes / 1e9:.1f} GB and fits into {budget}")
        tried.append(found)
    if recipe.channels == 3:
        tried.append(estimate(recipe, "tinyvideo", timed=timed))
    least = min(tried, key=lambda found: found.bytes)
    return replace(least, why=f"nothing fits into {budget}; {least.form} is the smallest, {least.bytes / 1e9:.1f} GB")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    bytes_per_pixel: float
    seconds_per_frame: float


def _try(recipe: Recipe, form: str) -> _Sample:
    """Return bytes and time of encoding the beginnings of a few clips, spread over the set."""
    size = pixels = frames = 0
    begun = time.perf_counter()
    for clip in spread(recipe.clips, _SAMPLED_CLIPS):
        _, height, width = recipe.shape(clip)
        for record in FORMS[form].encode(islice(recipe.frames(clip), _SAMPLED_FRAMES[recipe.channels])):
            size += len(record)
            pixels += height * width
            frames += 1
    return _Sample(
        bytes_per_pixel=size / max(1, pixels),
        seconds_per_frame=(time.perf_counter() - begun) / max(1, frames),
    )


def spread(clips: Sequence[ClipRecord], most: int) -> list[ClipRecord]:
    """Return at most `most` clips, spread evenly over all."""
    count = min(most, len(clips))
    return [clips[(2 * i + 1) * len(clips) // (2 * count)] for i in range(count)]
