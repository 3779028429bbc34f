"""How fast each form of prepared frames can be read on this machine, tried with a few clips of a data set."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..clips.crops import training_box
from ..clips.sampling import training_indices
from ..index.records import ClipRecord, Index
from ..reading.packed import video_file
from ..reading.torchcodec_frames import is_left_to_pyav, torchcodec_fault
from ..seeding import Draws
from ..specs import AugmentSpec, ClipSpec, DatasetSpec
from ..stores.build import Build, Recipe
from ..stores.forms import FORMS, open_store
from ..stores.protocol import Box
from ..stores.reuse import EarlierCaches
from .choice import Room, estimate, spread
from .prepare import chosen_form, plans, recipes

if TYPE_CHECKING:
    from ..stores.shards import ShardStore

_SAMPLED_CLIPS = 24
_LEAST_READS = 8
_PREFIX = "bench-"
_LONGEST_HOURS = 24
"""After this, a folder of a bench is one that was killed: every form is tried in a folder of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FormSpeed:
    """What one form of frames costs on this machine."""

    form: str
    clips_per_second: float
    """Random training clips that one thread reads and crops, from files in memory."""
    bytes: int
    """Of the whole data set, estimated for some forms."""
    fits: bool
    """Whether these stay within half of the memory and of the free disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """The form that `auto` takes, and the reason."""

    form: str
    why: str


def advice(index: Index, spec: DatasetSpec, cache_dir: Path) -> Advice:
    """Return the form that `auto` takes for a cache of RGB frames.

    Raises:
        CacheError: the record of an earlier choice cannot be read.
    """
    plan = plans(index, spec.model_copy(update={"store": "auto", "flow": "none"}), cache_dir)["rgb"]
    recorded = plan.recorded_form()
    if recorded is not None:
        return Advice(form=recorded, why="it was chosen before for this version of the data set")
    found = chosen_form(plan, Room.at(cache_dir))
    return Advice(form=found.form, why=found.why)


def measure_forms(
    index: Index, spec: DatasetSpec, clip: ClipSpec, cache_dir: Path, *, seconds: float
) -> Iterator[FormSpeed]:
    """Yield the speed of every form of RGB frames; each is read for `seconds`.

    Args:
        clip: the clips that are read.
        cache_dir: where caches will lie; caches of a few clips are made there, and removed.

    Raises:
        CacheError: the disk is full or cannot be written.
        VideoError: a clip cannot be decoded.
    """
    whole, room = recipes(index, spec)["rgb"], Room.at(cache_dir)
    few = replace(whole, clips=spread(whole.clips, _SAMPLED_CLIPS))
    cache_dir.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(cache_dir)
    for form in FORMS:
        size = estimate(whole, form).bytes
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=_PREFIX) as folder:
            speed = _speed(few, form, Path(folder) / form, clip, seconds)
        yield FormSpeed(form=form, clips_per_second=speed, bytes=size, fits=size <= room.budget_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSpeed:
    """How fast a decoder makes frames of the size that is prepared."""

    decoder: str
    frames_per_second: float | None
    """Of one thread; None where it decodes nothing."""
    fault: str = ""
    """Why it does not."""
    videos: int = 0
    """That were tried."""
    left_to_pyav: int = 0
    """Of these; their speed is that of PyAV."""


def measure_decoders(index: Index, spec: DatasetSpec, *, seconds: float) -> Iterator[DecoderSpeed]:
    """Yield the speed of each decoder, which decodes some videos for `seconds`; nothing without videos.

    Raises:
        VideoError: a clip cannot be decoded.
    """
    videos = spread([clip for clip in index.usable if clip.kind == "video"], _SAMPLED_CLIPS)
    if not videos:
        return
    for decoder in ("pyav", "torchcodec"):
        fault = torchcodec_fault() if decoder == "torchcodec" else None
        if fault is not None:
            yield DecoderSpeed(decoder=decoder, frames_per_second=None, fault=fault)
            continue
        left = sum(_is_left(clip, spec) for clip in videos) if decoder == "torchcodec" else 0
        if left == len(videos):
            fault = f"it leaves each of the {left} videos that were tried to PyAV"
            yield DecoderSpeed(decoder=decoder, frames_per_second=None, fault=fault, videos=left, left_to_pyav=left)
            continue
        recipe = recipes(index, spec.model_copy(update={"decoder": decoder, "flow": "none"}))["rgb"]
        next(iter(recipe.frames(videos[0])), None)  # loads what is loaded once
        count, begun = 0, time.perf_counter()
        for clip in cycle(videos):
            count += sum(1 for _ in recipe.frames(clip))
            spent = time.perf_counter() - begun
            if spent >= seconds:
                break
        yield DecoderSpeed(decoder=decoder, frames_per_second=count / spent, videos=len(videos), left_to_pyav=left)


def _is_left(clip: ClipRecord, spec: DatasetSpec) -> bool:
    return is_left_to_pyav(
        video_file(clip, Path(spec.root).expanduser()),
        counted=clip.n_frames,
        size=(clip.measured.width, clip.measured.height),
        turned=clip.measured.turned,
        start=clip.start,
        end=clip.end,
    )


def _remove_leftovers(cache_dir: Path) -> None:
    """Remove the folders of benches that were killed; no cache is called so."""
    for folder in cache_dir.glob(f"{_PREFIX}????????"):
        try:
            is_old = folder.stat().st_mtime < time.time() - _LONGEST_HOURS * 3600
        except OSError:
            continue  # another bench has just removed it
        if is_old:
            shutil.rmtree(folder, ignore_errors=True)


def _speed(recipe: Recipe, form: str, folder: Path, clip: ClipSpec, seconds: float) -> float:
    build = Build(recipe, form, folder, {}, EarlierCaches([]))
    build.begin(0)
    build.run(None)
    store = open_store(folder)
    _read(store, clip, 0)  # opens the files
    count, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds or count < _LEAST_READS:
        _read(store, clip, count)
        count += 1
    return count / spent


def _read(store: ShardStore, clip: ClipSpec, number: int) -> None:
    """Read one random clip as the loader does, with a random box that is not larger than the frames."""
    draws = Draws("bench", number)
    id_ = store.manifest.ids[draws.integer(len(store))]
    n_frames, height, width = store.shape(id_)
    indices = training_indices(n_frames, clip, draws)
    box: Box = training_box(height, width, AugmentSpec(), draws)
    store.read_into(id_, indices, box, np.empty((len(indices), box.height, box.width, store.channels), np.uint8))
