"""A data set of which a file has changed: only this file is decoded, and the cache is as one built from nothing."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.preparation.prepare
import data.stores.build
from data import Index, scan
from data.errors import CacheError
from data.index.records import ListedClip
from data.preparation.bench import advice
from data.preparation.choice import Room
from data.preparation.prepare import estimates, prepare
from data.reading.clip_frames import clip_frames
from data.stores.build import SPARE_BYTES, Build
from data.stores.contents import Contents
from data.stores.forms import FORMS
from data.stores.raw import RawStore
from data.stores.reuse import EarlierCaches
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving

from .test_prepare import contents, spec_of

REPAIRED = "videos/Grow/v_Grow_g02_c01.avi"


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_root, tmp_path / "set")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clips that a preparation has decoded."""
    seen: list[str] = []

    def counted(clip: ListedClip, *arguments: Any, **keywords: Any) -> Iterator[Any]:
        seen.append(clip.path)
        return clip_frames(clip, *arguments, **keywords)

    monkeypatch.setattr("data.preparation.choice._SAMPLED_CLIPS", 0)  # the estimate of a size decodes, too
    monkeypatch.setattr(data.preparation.prepare, "clip_frames", counted)
    monkeypatch.setattr("data.flow.compute.clip_frames", counted)
    return seen


def repair(root: Path, *, frames: int = 22) -> None:
    write_video(root / REPAIRED, moving(frames, 48, 64, seed=7))


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.stores.build, "SHARD_BYTES", 300_000)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_only_a_changed_clip_is_decoded(
    form: str, root: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    spec = spec_of(root, store=form)
    prepare(scan(root), spec, tmp_path / "cache")
    repair(root)
    index = scan(root)
    decoded.clear()
    store = prepare(index, spec, tmp_path / "cache")["rgb"]
    assert decoded == [REPAIRED]
    fresh = prepare(index, spec, tmp_path / "fresh")["rgb"]
    assert contents(store.folder) == contents(fresh.folder)


def test_flow_of_a_changed_clip_alone_is_computed(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    spec = spec_of(root, store="raw", flow="farneback")
    prepare(scan(root), spec, tmp_path / "cache")
    repair(root)
    decoded.clear()
    stores = prepare(scan(root), spec, tmp_path / "cache")
    assert set(decoded) == {REPAIRED}
    fresh = prepare(scan(root), spec, tmp_path / "fresh")
    assert contents(stores["flow"].folder) == contents(fresh["flow"].folder)


def test_a_destroyed_clip_is_noticed_at_check_and_costs_itself(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    spec, memory = spec_of(root, store="raw"), tmp_path / "measured"
    before = scan(root, memory=memory)
    prepare(before, spec, tmp_path / "cache")
    file = root / REPAIRED
    state, broken = file.stat(), bytearray(file.read_bytes())
    broken[len(broken) // 3 : len(broken) // 2] = bytes(len(broken) // 2 - len(broken) // 3)
    file.write_bytes(broken)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # as a failing disk leaves it
    assert scan(root, memory=memory).hash == before.hash
    after = scan(root, memory=memory, every_byte=True)
    assert after.hash != before.hash
    decoded.clear()
    prepare(after, spec, tmp_path / "cache")
    assert set(decoded) <= {REPAIRED}


def test_clips_with_other_names_and_labels_are_taken_too(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    shutil.rmtree(root / "annotations")
    spec = spec_of(root, name="class_folders", store="jpeg")
    prepare(scan(root, name="class_folders"), spec, tmp_path / "cache")
    (root / "videos" / "Grow").rename(root / "videos" / "Wax")
    decoded.clear()
    store = prepare(scan(root, name="class_folders"), spec, tmp_path / "cache")["rgb"]
    assert decoded == []
    assert "Wax/v_Grow_g02_c01" in store


@pytest.mark.parametrize("changes", [{"short_side": 24}, {"frames_kept": "uniform:4"}, {"store": "jpeg"}])
def test_another_preparation_takes_nothing(
    changes: dict[str, Any], root: Path, tmp_path: Path, decoded: list[str]
) -> None:
    index = scan(root)
    prepare(index, spec_of(root, store="raw"), tmp_path / "cache")
    decoded.clear()
    prepare(index, spec_of(root, **{"store": "raw", **changes}), tmp_path / "cache")
    assert len(decoded) == len(index.usable)


def test_unchanged_shards_cost_no_space(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    spec = spec_of(root, store="raw")
    first = prepare(scan(root), spec, tmp_path / "cache")["rgb"]
    repair(root, frames=scan(root).clips[3].n_frames)
    steps: list[tuple[str, int, int]] = []
    second = prepare(scan(root), spec, tmp_path / "cache", progress=lambda *step: steps.append(step))["rgb"]
    assert {step for step, _, _ in steps} == {"reuse", "prepare"}
    _, done, total = [step for step in steps if step[0] == "reuse"][-1]
    assert len(second) - 4 <= done == total < len(second)
    inodes = [{file.stat().st_ino for file in store.folder.glob("shard-*")} for store in (first, second)]
    assert len(inodes[0]) > 5
    assert len(inodes[0] & inodes[1]) >= len(inodes[0]) - 2


class Killed(BaseException):
    """The process ends here."""


def test_an_unfinished_build_of_another_version_is_used(
    root: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    monkeypatch.setattr("data.parallel.os.cpu_count", lambda: 1)
    report = Build._report
    reported = 0

    def killed_at(number: int) -> None:
        nonlocal reported
        reported = 0

        def step(build: Build, progress: Any) -> None:
            nonlocal reported
            reported += 1
            if reported == number:
                raise Killed
            report(build, progress)

        monkeypatch.setattr(Build, "_report", step)

    spec = spec_of(root, store="jpeg")
    killed_at(20)
    with pytest.raises(Killed):
        prepare(scan(root), spec, tmp_path / "cache")
    repair(root)
    index = scan(root)
    killed_at(2)  # and the next one is killed, too
    with pytest.raises(Killed):
        prepare(index, spec, tmp_path / "cache")
    killed_at(0)
    store = prepare(index, spec, tmp_path / "cache")["rgb"]
    # All once, the changed one again, and those of the shards that a kill has cut.
    assert len(decoded) <= len(index.usable) + 1 + 2 * 3
    assert contents(store.folder) == contents(prepare(index, spec, tmp_path / "fresh")["rgb"].folder)


def repaired_after_auto(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Return the next version of a set whose frames `auto` has prepared as `raw`, on a disk that is nearly full now."""
    small_shards(monkeypatch)
    before = scan(root)
    assert prepare(before, spec_of(root), cache)["rgb"].manifest.form == "raw"
    repair(root, frames=before.clips[3].n_frames)
    little = Room(memory_bytes=1_800_000, free_bytes=SPARE_BYTES + 1_000_000)  # for 2.4 MB of raw frames
    monkeypatch.setattr(Room, "at", lambda _: little)
    return scan(root)


def test_auto_keeps_its_form_though_the_earlier_cache_fills_the_disk(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index = repaired_after_auto(root, tmp_path, monkeypatch)
    estimate = estimates(index, spec_of(root), tmp_path)["rgb"]
    assert estimate is not None
    assert (estimate.form, estimate.why) == ("raw", "raw, as for an earlier version of the data set")
    told = advice(index, spec_of(root, store="jpeg"), tmp_path)
    assert (told.form, told.why) == (estimate.form, estimate.why)
    caplog.set_level(logging.INFO)
    assert prepare(index, spec_of(root), tmp_path)["rgb"].manifest.form == "raw"
    assert "23 of 24 clips are in earlier caches" in caplog.text
    monkeypatch.setattr(Room, "at", lambda _: Room(memory_bytes=0, free_bytes=0))
    assert advice(index, spec_of(root), tmp_path).form == "raw", "it is recorded"


def test_auto_takes_a_form_that_fits_where_shards_cannot_be_linked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = repaired_after_auto(root, tmp_path, monkeypatch)

    def refused(*_: object) -> None:
        raise PermissionError("fs.protected_hardlinks")

    monkeypatch.setattr(os, "link", refused)
    assert advice(index, spec_of(root), tmp_path).form == "jpeg"
    assert prepare(index, spec_of(root), tmp_path)["rgb"].manifest.form == "jpeg"


def test_a_form_without_room_is_not_recorded(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = scan(root)
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patched:
        patched.setattr("data.stores.build.shutil.disk_usage", lambda _: full)
        patched.setattr(Room, "at", lambda _: Room(memory_bytes=1 << 40, free_bytes=1 << 40))
        with pytest.raises(CacheError, match="GB as raw"):
            prepare(index, spec_of(root), tmp_path)
    monkeypatch.setattr(Room, "at", lambda _: Room(memory_bytes=1_800_000, free_bytes=1 << 40))
    assert prepare(index, spec_of(root), tmp_path)["rgb"].manifest.form == "jpeg"


def test_damaged_caches_are_not_taken_from(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    spec = spec_of(root, store="raw")
    first = prepare(scan(root), spec, tmp_path / "cache")["rgb"]
    next(first.folder.glob("shard-*")).write_bytes(b"")
    repair(root)
    index = scan(root)
    decoded.clear()
    store = prepare(index, spec, tmp_path / "cache")["rgb"]
    assert len(decoded) == 24
    np.testing.assert_array_equal(
        store.video(index.clips[0].id), np.stack(list(clip_frames(index.clips[0], root, short_side=32)))
    )


def damage(file: Path) -> None:
    """Flip bytes of a frame in the middle of a file without another size or a new inode, as a failing disk does."""
    content = file.read_bytes()
    middle = len(content) // 2
    if file.name == "data.mdb":  # which has no frame at most places
        middle = content.index(b"\xff\xd8\xff", middle) + 100
    with file.open("r+b") as stream:
        stream.seek(middle)
        stream.write(bytes(255 - byte for byte in content[middle : middle + 64]))


@pytest.mark.parametrize("form", ["raw", "jpeg", "lmdb"])
def test_damage_is_not_carried_into_the_next_cache(
    form: str, root: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    spec = spec_of(root, store=form)
    first = prepare(scan(root), spec, tmp_path / "cache")["rgb"]
    # The first shard would be linked, and of the last one clips would be copied.
    shards = sorted(first.folder.glob("data.mdb" if form == "lmdb" else "shard-*"))
    for shard in {shards[0], shards[-1]}:
        damage(shard)
    repair(root)
    index = scan(root)
    decoded.clear()
    store = prepare(index, spec, tmp_path / "cache")["rgb"]
    assert len(decoded) < 12
    assert contents(store.folder) == contents(prepare(index, spec, tmp_path / "fresh")["rgb"].folder)


def test_a_linked_shard_that_was_damaged_is_made_again_after_its_folder_is_deleted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    spec = spec_of(root, store="jpeg")
    prepare(scan(root), spec, tmp_path / "cache")
    repair(root, frames=scan(root).clips[3].n_frames)
    index = scan(root)
    second = prepare(index, spec, tmp_path / "cache")["rgb"]
    before = contents(second.folder)
    damage(next(file for file in sorted(second.folder.glob("shard-*")) if file.stat().st_nlink > 1))
    assert contents(second.folder) != before
    shutil.rmtree(second.folder)
    assert contents(prepare(index, spec, tmp_path / "cache")["rgb"].folder) == before


def test_workers_of_0_2_0_read_the_manifest(root: Path, tmp_path: Path) -> None:
    folder = prepare(scan(root), spec_of(root, store="raw"), tmp_path)["rgb"].folder
    table = json.loads((folder / "manifest.json").read_text())
    columns = {"ids", "n_frames", "height", "width", "shard", "offset", "first", "shard_bytes"}
    assert table.keys() == {"format", "form", "channels", "settings", *columns}
    assert table["format"] == 2


def test_caches_without_checksums_are_read_but_not_taken_from_and_new_columns_do_not_matter(
    root: Path, tmp_path: Path, decoded: list[str]
) -> None:
    spec = spec_of(root, store="raw")
    folder = prepare(scan(root), spec, tmp_path / "cache")["rgb"].folder
    (folder / "contents.json").unlink()
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "of_a_later_release": [1]}))
    decoded.clear()
    assert len(prepare(scan(root), spec, tmp_path / "cache")["rgb"]) == 24
    assert decoded == []
    repair(root)
    prepare(scan(root), spec, tmp_path / "cache")
    assert len(decoded) == 24


def test_what_an_earlier_release_began_is_finished_and_not_taken_from(
    root: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(root, store="jpeg")
    with monkeypatch.context() as patched:
        patched.setattr(Build, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(scan(root), spec, tmp_path)
    (begun,) = tmp_path.glob("*.building")
    for file in (begun / "begun.json", begun / "contents.json", *begun.glob("sizes/*crc32*")):
        file.unlink()
    decoded.clear()
    assert len(prepare(scan(root), spec, tmp_path)["rgb"]) == 24
    assert decoded == []
    repair(root)
    prepare(scan(root), spec, tmp_path)
    assert len(decoded) == 24


class Counted(tuple[int, ...]):
    """Counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[int]:
        type(self).passes += 1
        return super().__iter__()


def test_the_table_of_an_earlier_cache_is_gone_through_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    store = prepare(scan(root), spec_of(root, store="raw"), tmp_path)["rgb"]
    table = replace(store.manifest, shard=Counted(store.manifest.shard))
    earlier = EarlierCaches([(RawStore(store.folder, table), Contents.load(store.folder, len(store)))])
    made_of = Contents.load(store.folder, len(store)).made_of
    for number in set(store.manifest.shard):
        shard = earlier.shard(tuple(made_of[row] for row, at in enumerate(store.manifest.shard) if at == number))
        assert shard is not None
        assert shard.file.stat().st_size == shard.sizes().sum()
    assert Counted.passes == 1
