"""Preparing frames and flow of all usable clips once, for all processes that share the cache folder.

    <cache>/<name>-<key>-<form>/                   frames
    <cache>/<name>-<key>-flow-<method>-<form>/     flow
    ….building/                                    the same, unfinished
    <cache>/<name>-<key>….auto                     the form that `auto` has chosen here, for all later calls
    <cache>/<name>-<key>….lock                     held by the process that builds

The key is a hash of the index's hash and the settings of the preparation, so it changes with the content of any clip.
Clip length and stride are not part of it, because studies search them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from filelock import FileLock, Timeout

from ..errors import CacheError, DamagedCacheError, FlowError, InvalidSpecError
from ..flow.compute import FLOW_BOUND, ComputedFlow, computed_flow, flow_method, listed_flow
from ..importers import frame_lmdb
from ..index.records import ClipRecord, Index
from ..progress import Progress
from ..reading.clip_frames import clip_frames
from ..reading.packed import video_file
from ..reading.torchcodec_frames import require_torchcodec, torchcodec_frames
from ..reading.video import scaled_size
from ..scanning.measure import changed
from ..specs import DatasetSpec, Stream
from ..stores.build import SPARE_BYTES, Build, Recipe, plan_shards
from ..stores.forms import FORMS, open_store
from ..stores.manifest import CACHE_FORMAT
from ..stores.reuse import EarlierCaches, content_of
from .choice import Estimate, Room, choose, estimate

if TYPE_CHECKING:
    from ..arrays import ByteArray, Indices
    from ..stores.shards import ShardStore


log = logging.getLogger(__name__)

_NEARLY_ALL = 0.9
"""Part of the frames that an earlier cache must hold for its form to be taken without looking for a better one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One cache that a specification asks for."""

    recipe: Recipe
    place: Path
    """Its folder, without the form at the end of the name."""
    form: str
    """A form, or `auto`."""
    settings: Mapping[str, Any]
    class_names: tuple[str, ...]

    def recorded_form(self) -> str | None:
        """Return the requested form, or for `auto` the form that was chosen before; None if none was."""
        if self.form != "auto":
            return self.form
        try:
            recorded = str(json.loads(self._choice.read_text(encoding="utf-8"))["form"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{self._choice} cannot be read ({error}); delete it") from error
        if recorded not in FORMS:
            raise CacheError(f"{self._choice} names the unknown form {recorded!r}; delete it")
        return recorded

    def record(self, chosen: Estimate) -> None:
        """Record the form that `auto` has chosen for later calls."""
        if self.form != "auto" or self._choice.exists():
            return
        aside = self._choice.with_name(f"{self._choice.name}.{os.getpid()}.part")
        aside.write_text(json.dumps({"form": chosen.form, "why": chosen.why}) + "\n", encoding="utf-8")
        aside.replace(self._choice)

    def folder(self, form: str) -> Path:
        return self.place.with_name(f"{self.place.name}-{form}")

    @property
    def lock(self) -> Path:
        return self.place.with_name(f"{self.place.name}.lock")

    @property
    def _choice(self) -> Path:
        return self.place.with_name(f"{self.place.name}.auto")


def prepare(
    index: Index, spec: DatasetSpec, cache_dir: Path, *, progress: Progress | None = None
) -> dict[Stream, ShardStore]:
    """Return the stores of all usable clips, `rgb` and, if `spec` has flow, `flow`; missing ones are built.

    Several processes may call this at the same time: one builds, and the others wait for it.

    Raises:
        CacheError: the disk is too small or cannot be written, or a clip has changed.
        VideoError: a clip cannot be decoded any more.
        FlowError: the flow in `spec` cannot be computed.
    """
    stores: dict[Stream, ShardStore] = {}
    for stream, plan in plans(index, spec, cache_dir).items():
        store = _opened(plan)
        if store is None:
            taken = sum(other.n_bytes for other in stores.values())
            store = _built(plan, Room.at(cache_dir).without(taken, on_disk=True), progress)
        stores[stream] = store
    return stores


def estimates(index: Index, spec: DatasetSpec, cache_dir: Path) -> dict[Stream, Estimate | None]:
    """Return the estimate of each cache, after decoding a few clips; None for a cache that is already built."""
    found: dict[Stream, Estimate | None] = {}
    room = Room.at(cache_dir)
    for stream, plan in plans(index, spec, cache_dir).items():
        store = _opened(plan)
        if store is not None:
            found[stream] = None
            room = room.without(store.n_bytes, on_disk=True)
            continue
        new = _decide(plan, room, timed=True)
        if new.seconds is not None:
            new = replace(new, seconds=new.seconds * (1 - _known_share(plan.recipe, _earlier(plan, new.form))))
        found[stream] = new
        room = room.without(new.bytes, on_disk=False)
    return found


def plans(index: Index, spec: DatasetSpec, cache_dir: Path) -> dict[Stream, Plan]:
    """Return the caches that a specification asks for.

    Raises:
        FlowError: a clip has no flow, or cannot have any.
    """
    made_of = recipes(index, spec)
    settings: dict[str, Any] = {"short_side": spec.short_side, "frames_kept": spec.frames_kept}
    if spec.decoder == "torchcodec":
        settings["decoder"] = spec.decoder
    place = cache_dir / f"{index.name}-{_key(index, settings)}"
    made: dict[Stream, Plan] = {"rgb": _plan(index, place, made_of["rgb"], spec.store, settings)}
    if spec.flow != "none":
        # Chroma planes and motion vectors of a codec make no sense for flow.
        form = spec.store if spec.store in ("auto", "raw") else "jpeg"
        settings = {**settings, "flow": spec.flow, "bound": FLOW_BOUND}
        settings.pop("decoder", None)  # flow is computed from what PyAV decodes
        if spec.flow == "raft" and spec.flow_weights is not None:
            settings["weights"] = _file_hash(Path(spec.flow_weights).expanduser())
        place = cache_dir / f"{index.name}-{_key(index, settings)}-flow-{spec.flow}"
        made["flow"] = _plan(index, place, made_of["flow"], form, settings)
    return made


def recipes(index: Index, spec: DatasetSpec) -> dict[Stream, Recipe]:
    """Return how to make the frames of all usable clips and, if `spec` has flow, their flow.

    Raises:
        FlowError: a clip has no flow, or cannot have any.
    """
    made: dict[Stream, Recipe] = {"rgb": _rgb_recipe(index, spec)}
    if spec.flow != "none":
        made["flow"] = _flow_recipe(index, spec)
    return made


def kept_frames(n_frames: int, most: int | None) -> Indices:
    """Return the numbers of the frames to keep of a clip: all, or the middles of `most` equal parts."""
    if most is None or n_frames <= most:
        return np.arange(n_frames)
    return ((np.arange(most) + 0.5) * n_frames / most).astype(np.intp)


def _plan(index: Index, place: Path, recipe: Recipe, form: str, settings: Mapping[str, Any]) -> Plan:
    return Plan(
        recipe=recipe,
        place=place,
        form=form,
        settings={"dataset": index.name, "version": index.hash, **settings},
        class_names=index.class_names,
    )


def _key(index: Index, settings: Mapping[str, Any]) -> str:
    parts = json.dumps([CACHE_FORMAT, index.hash, settings], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _opened(plan: Plan) -> ShardStore | None:
    """Return the store of a finished cache, None where there is none or its files are damaged."""
    form = plan.recorded_form()
    return None if form is None else _whole(plan.folder(form))


def _whole(folder: Path) -> ShardStore | None:
    try:
        return open_store(folder) if folder.is_dir() else None
    except DamagedCacheError as error:
        log.warning("%s; it is built again", error)
        return None


def _built(plan: Plan, room: Room, progress: Progress | None) -> ShardStore:
    """Return the store, after building it unless another process has built it meanwhile."""
    cache_dir = plan.place.parent
    with _as_cache_error(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(plan, progress):
            found = _decide(plan, room)
            folder = plan.folder(found.form)
            if _whole(folder) is None:
                # Who reads the damaged files goes on doing so; their names are free.
                shutil.rmtree(folder, ignore_errors=True)
                settings = {**plan.settings, **({"why": found.why} if found.why else {})}
                meta = _lmdb_meta(plan) if found.form == "lmdb" else None
                earlier = _earlier(plan, found.form)
                if known := sum(plan.recipe.content(clip) in earlier for clip in plan.recipe.clips):
                    log.info("%d of %d clips are in earlier caches", known, len(plan.recipe.clips))
                build = Build(plan.recipe, found.form, folder, settings, earlier)
                build.begin(found.bytes, progress)
                # A form for which there is no room is not recorded: there may be room for another.
                plan.record(found)
                build.run(progress, meta=meta)
            else:
                plan.record(found)
    return open_store(folder)


@contextmanager
def _locked(plan: Plan, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of a store; say so where another process holds it first."""
    lock = FileLock(plan.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress is not None:
            progress("wait", 0, len(plan.recipe.clips))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _decide(plan: Plan, room: Room, *, timed: bool = False) -> Estimate:
    form = plan.recorded_form()
    return chosen_form(plan, room, timed=timed) if form is None else estimate(plan.recipe, form, timed=timed)


def chosen_form(plan: Plan, room: Room, *, timed: bool = False) -> Estimate:
    """Return the form that `auto` takes for a cache of which none is recorded."""
    return _as_before(plan, room, timed=timed) or choose(plan.recipe, room, timed=timed)


def _as_before(plan: Plan, room: Room, *, timed: bool = False) -> Estimate | None:
    """Return the form that was chosen for a version of the data set with nearly the same clips; None without one.

    Another form would decode all clips again and show the trials of a study other pixels: the cache of the version
    before may leave too little room for its own form to be chosen again.
    """
    for form in FORMS:
        earlier = _earlier(plan, form)
        share = _known_share(plan.recipe, earlier)
        if not earlier.chosen or share < _NEARLY_ALL:
            continue
        found = estimate(plan.recipe, form, timed=timed)
        if _new_share(plan, earlier) * found.bytes + SPARE_BYTES <= room.free_bytes:
            return replace(found, why=f"{form}, as for an earlier version of the data set")
    return None


def _new_share(plan: Plan, earlier: EarlierCaches) -> float:
    """Return which part of the frames needs space, by size: shards of clips that are copied do, too."""
    linkable = earlier.linkable(plan.place.parent)
    new = total = 0
    for shard in plan_shards(plan.recipe):
        size = sum(map(plan.recipe.decoded_bytes, shard.clips))
        total += size
        if tuple(map(plan.recipe.content, shard.clips)) not in linkable:
            new += size
    return new / max(1, total)


def _earlier(plan: Plan, form: str) -> EarlierCaches:
    return EarlierCaches.beside(plan.folder(form), form, plan.settings)


def _known_share(recipe: Recipe, earlier: EarlierCaches) -> float:
    """Return which part of the frames earlier caches hold, by size."""
    sizes = [(recipe.content(clip) in earlier, recipe.decoded_bytes(clip)) for clip in recipe.clips]
    return sum(size for known, size in sizes if known) / max(1, sum(size for _, size in sizes))


@contextmanager
def _as_cache_error(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(f"the cache in {cache_dir} cannot be written: {error}") from error


def _rgb_recipe(index: Index, spec: DatasetSpec) -> Recipe:
    root = Path(spec.root).expanduser()
    if spec.decoder == "torchcodec":
        require_torchcodec()

    def shape(clip: ClipRecord) -> tuple[int, int, int]:
        width, height = scaled_size(clip.measured.width, clip.measured.height, spec.short_side)
        return len(kept_frames(clip.n_frames, spec.most_frames)), height, width

    def frames(clip: ClipRecord) -> Iterator[ByteArray]:
        keep = None if spec.most_frames is None else frozenset(kept_frames(clip.n_frames, spec.most_frames).tolist())
        if spec.decoder == "torchcodec" and clip.kind == "video":
            return torchcodec_frames(
                video_file(clip, root),
                counted=clip.n_frames,
                size=(clip.measured.width, clip.measured.height),
                turned=clip.measured.turned,
                short_side=spec.short_side,
                start=clip.start,
                end=clip.end,
                keep=keep,
            )
        return clip_frames(clip, root, short_side=spec.short_side, keep=keep)

    return Recipe(
        clips=index.usable, channels=3, shape=shape, frames=frames, content=content_of, changed=partial(_changed, root)
    )


def _flow_recipe(index: Index, spec: DatasetSpec) -> Recipe:
    root, short_side = Path(spec.root).expanduser(), spec.short_side
    weights = None if spec.flow_weights is None else Path(spec.flow_weights).expanduser()
    for clip in index.usable:
        if clip.n_frames < 2:
            raise FlowError(f"{clip.id} is a single image, which has no optical flow; set flow to none")
        if spec.flow == "listed" and clip.flow is None:
            raise FlowError(f"{clip.id} came without optical flow; choose a flow that is computed, such as dis")

    def starts(clip: ClipRecord) -> list[int]:
        return [int(number) for number in kept_frames(clip.n_frames, spec.most_frames)[:-1]]

    def shape(clip: ClipRecord) -> tuple[int, int, int]:
        width, height = scaled_size(clip.measured.width, clip.measured.height, short_side)
        return len(starts(clip)), height, width

    def fields(clip: ClipRecord) -> Iterator[ByteArray]:
        if spec.flow == "listed":
            return listed_flow(clip, root, short_side=short_side, starts=starts(clip))
        method = flow_method(cast("ComputedFlow", spec.flow), weights=weights)
        return computed_flow(clip, root, method, short_side=short_side, starts=starts(clip))

    def content(clip: ClipRecord) -> str:
        return content_of(clip, with_flow=spec.flow == "listed")

    return Recipe(
        clips=index.usable,
        channels=2,
        shape=shape,
        frames=fields,
        content=content,
        changed=partial(_changed, root),
        stage="flow",
    )


def _changed(root: Path, clips: Sequence[ClipRecord]) -> Iterator[ClipRecord]:
    """Yield the clips that lie in other bytes by now than were measured; those of one file are read together."""
    for _, group in groupby(clips, key=lambda clip: (clip.path, clip.member)):
        same_file = list(group)
        found = changed(root, [(clip, clip.measured) for clip in same_file])
        yield from (clip for clip, is_changed in zip(same_file, found, strict=True) if is_changed)


def _lmdb_meta(plan: Plan) -> dict[str, Any]:
    """Return the description in an LMDB, which its importer reads."""
    clips = [
        {
            "id": clip.id,
            "label": clip.label,
            "other_labels": clip.other_labels,
            "n_frames": plan.recipe.shape(clip)[0],
            "group": clip.group,
            "official": clip.official,
        }
        for clip in plan.recipe.clips
    ]
    return {"format": frame_lmdb.FORMAT, "version": frame_lmdb.VERSION, "class_names": plan.class_names, "clips": clips}


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InvalidSpecError(f"flow_weights is {str(path)!r}, which cannot be read: {error.strerror}") from error
