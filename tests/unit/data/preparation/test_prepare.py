"""Preparation: what is built, what it is called, and that nothing but the content and the settings decides about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data.preparation.choice
import data.preparation.prepare
import data.stores.build
from data import DatasetSpec, Index, open_dataset, scan
from data.errors import CacheError, FlowError, InvalidSpecError
from data.index.records import make_index
from data.preparation.choice import Room
from data.preparation.prepare import estimates, kept_frames, plans, prepare
from data.reading.clip_frames import clip_frames
from data.stores.forms import FORMS, open_store
from data.stores.manifest import Manifest
from data.stores.shards import shard_name
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import index_of, listed, moving, write_frames

from ..encoded import decode_video


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> Index:
    return scan(tiny_root)


@pytest.fixture
def spec(tiny_root: Path) -> DatasetSpec:
    return DatasetSpec(name="ucf101", root=tiny_root, short_side=32)


def spec_of(root: Path, **changes: Any) -> DatasetSpec:
    return DatasetSpec(**{"name": "ucf101", "root": root, "short_side": 32, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_frames_are_those_of_sequential_decoding(
    index: Index, spec: DatasetSpec, tiny_root: Path, tmp_path: Path
) -> None:
    store = prepare(index, spec, tmp_path)["rgb"]
    assert len(store) == len(index.usable) == 24
    for clip in index.usable:
        expected = decode_video(tiny_root / clip.path, short_side=32)
        assert expected.shape[1:] == (32, 43, 3)
        np.testing.assert_array_equal(store.video(clip.id), expected)


def agree(shared_data: Path, name: str, tmp_path: Path) -> None:
    """Check the frames of a real clip in the cache against OpenCV reading it from the start."""
    import cv2

    root = shared_data / "real_clips"
    index = index_of(root, listed(name))
    video = prepare(index, spec_of(root, short_side=1024), tmp_path)["rgb"].video(name)
    capture = cv2.VideoCapture(str(root / name))
    for number, frame in enumerate(video):
        there, other = capture.read()
        assert there, f"OpenCV ends at frame {number}"
        # Both convert the same decoded planes, OpenCV with another rounding of chroma.
        assert np.abs(other[..., ::-1].astype(int) - frame).mean() < 2.5, number
    assert not capture.read()[0]
    assert len(video) == index.clips[0].n_frames


def test_a_real_clip_agrees_with_another_decoder(shared_data: Path, tmp_path: Path) -> None:
    agree(shared_data, "TrumanShow_wave_f_nm_np1_fr_med_26.avi", tmp_path)


@pytest.mark.slow
def test_all_real_clips_agree_with_another_decoder(shared_data: Path, tmp_path: Path) -> None:
    names = sorted(file.name for file in (shared_data / "real_clips").iterdir() if file.suffix in {".avi", ".mp4"})
    assert len(names) == 14
    for name in names:
        agree(shared_data, name, tmp_path / name)


def test_many_small_shards_hold_the_same_frames(
    index: Index, spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(index, spec, tmp_path / "a")["rgb"]
    monkeypatch.setattr(data.stores.build, "SHARD_BYTES", 300_000)
    parts = prepare(index, spec, tmp_path / "b")["rgb"]
    assert len(list(parts.folder.glob("shard-*.bin"))) > 3
    for clip in index.usable:
        np.testing.assert_array_equal(parts.video(clip.id), whole.video(clip.id))


def test_a_second_preparation_decodes_nothing(
    index: Index, spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(index, spec, tmp_path)
    monkeypatch.setattr(data.preparation.prepare, "clip_frames", None)
    assert len(prepare(index, spec, tmp_path)["rgb"]) == 24
    assert estimates(index, spec, tmp_path) == {"rgb": None}


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_shard_that_is_truncated_or_missing_is_built_again(
    damage: str, index: Index, spec: DatasetSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = prepare(index, spec, tmp_path)["rgb"]
    expected = {clip.id: whole.video(clip.id).copy() for clip in index.usable}
    shard = whole.folder / shard_name(0)
    if damage == "truncated":
        os.truncate(shard, shard.stat().st_size // 2)
    else:
        shard.unlink()
    again = prepare(index, spec, tmp_path)["rgb"]
    assert caplog.text.count("it is built again") >= 1
    for clip in index.usable:
        np.testing.assert_array_equal(again.video(clip.id), expected[clip.id])
    assert contents(again.folder).keys() == contents(whole.folder).keys()


def test_the_key_follows_content_and_preparation_and_nothing_else(index: Index, tiny_root: Path) -> None:
    fewer = make_index(name=index.name, class_names=index.class_names, clips=index.clips[1:])
    cases = [(index, spec_of(tiny_root)), (index, spec_of(tiny_root, short_side=64)), (fewer, spec_of(tiny_root))]
    cases += [(index, spec_of(tiny_root, frames_kept=f"uniform:{n}")) for n in (4, 8)]
    places = {plans(given, spec, Path("c"))["rgb"].place for given, spec in cases}
    assert len(places) == len(cases)
    same = [spec_of(tiny_root), spec_of(tiny_root, split=2), spec_of(tiny_root, flow="dis")]
    assert len({plans(index, spec, Path("c"))["rgb"].place for spec in same}) == 1
    flows = {plans(index, spec_of(tiny_root, flow=flow), Path("c"))["flow"].place for flow in ("dis", "tvl1")}
    assert len(flows) == 2


def test_progress_counts_every_clip_once(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    prepare(index, spec_of(tiny_root, flow="dis"), tmp_path, progress=lambda *step: reports.append(step))
    assert reports == [(stage, n, 24) for stage in ("prepare", "flow") for n in range(1, 25)]


KILLED_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
from data import DatasetSpec, scan
from data.preparation import prepare as preparation
from data.index.records import make_index
from data.stores import build

root, folder = map(Path, sys.argv[1:])
whole = scan(root)
index = make_index(name=whole.name, class_names=whole.class_names, clips=whole.clips[:2])
build.SHARD_BYTES = 60_000


def in_child(work):
    # Threads of a build end with their child: the process that forks has none.
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    return os.waitpid(child, 0)[1]


def built(form, flow, cache_dir, last_step):
    steps = 0

    def dying(function):
        def step(*arguments, **keywords):
            nonlocal steps
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)
        return step

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "rename"), (os, "replace"), (shutil, "rmtree"),
                        (build.Build, "_report"), (Path, "unlink")):
        setattr(owner, name, dying(getattr(owner, name)))
    spec = DatasetSpec(name="ucf101", root=root, short_side=32, store=form, flow=flow)
    preparation.prepare(index, spec, cache_dir)


for form, flow in (("raw", "dis"), ("i420", "none"), ("jpeg", "farneback"), ("tinyvideo", "none"), ("lmdb", "none")):
    assert in_child(lambda: built(form, flow, folder / f"{form}-straight", 0)) == 0
    killed = 0
    while status := in_child(lambda: built(form, flow, folder / f"{form}-killed", 1 + killed % 17)):
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
        killed += 1
    print(form, killed, flush=True)
"""


def test_a_build_killed_at_every_step_gives_the_same_bytes(tiny_root: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", KILLED_EVERYWHERE, str(tiny_root), str(tmp_path)]
    shown = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True).stdout
    killed = {form: int(count) for form, count in map(str.split, shown.splitlines())}
    assert set(killed) == set(FORMS)
    assert min(killed.values()) >= 8
    for form in FORMS:
        straight = contents(tmp_path / f"{form}-straight")
        assert any("manifest.json" in name for name in straight)
        assert contents(tmp_path / f"{form}-killed") == straight


def test_finished_shards_are_not_built_again(
    index: Index, spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.stores.build, "SHARD_BYTES", 300_000)
    monkeypatch.setattr(data.stores.build.Build, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(index, spec, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(data.stores.build, "SHARD_BYTES", 300_000)
    building = next(tmp_path.glob("*.building"))
    shards = sorted(building.glob("shard-*.bin"))
    shards[2].write_bytes(shards[2].read_bytes()[:-1])  # as a failing machine leaves it
    decoded = []

    def counted(clip: Any, *arguments: Any, **options: Any) -> Any:
        decoded.append(clip.id)
        return clip_frames(clip, *arguments, **options)

    monkeypatch.setattr(data.preparation.prepare, "clip_frames", counted)
    store = prepare(index, spec, tmp_path)["rgb"]
    assert {store.manifest.shard[store.manifest.rows[id_]] for id_ in decoded} == {2}
    assert not building.exists()


BUILT_BESIDE = """
import sys
from pathlib import Path
from data import DatasetSpec, scan
from data.preparation.prepare import prepare

root, cache_dir = map(Path, sys.argv[1:])
index = scan(root)
print("ready", flush=True)
sys.stdin.readline()
built = []
spec = DatasetSpec(name="ucf101", root=root, short_side=32)
prepare(index, spec, cache_dir, progress=lambda *step: built.append(step))
print(sum(step[0] != "wait" for step in built), flush=True)
"""


def test_of_two_processes_one_builds_and_both_read(
    index: Index, spec: DatasetSpec, tiny_root: Path, tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", BUILT_BESIDE, str(tiny_root), str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(arguments, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    reports = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(reports) == [0, 24]
    clip = index.usable[-1]
    expected = decode_video(tiny_root / clip.path, short_side=32)
    np.testing.assert_array_equal(prepare(index, spec, tmp_path)["rgb"].video(clip.id), expected)


@pytest.mark.parametrize("form", FORMS)
def test_the_estimate_is_what_the_cache_takes(index: Index, tiny_root: Path, tmp_path: Path, form: Any) -> None:
    spec = spec_of(tiny_root, store=form)
    estimate = estimates(index, spec, tmp_path)["rgb"]
    assert estimate is not None
    assert (estimate.n_clips, estimate.n_frames) == (24, sum(clip.n_frames for clip in index.usable))
    assert estimate.seconds is not None
    folder = prepare(index, spec, tmp_path)["rgb"].folder
    taken = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in {".bin", ".mdb"})
    assert estimate.bytes == (taken if estimate.exact else pytest.approx(taken, rel=0.25))
    assert estimate.exact == (form in {"raw", "i420"})


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_a_disk_that_is_too_small_is_reported_before_building(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr(data.stores.build, "in_threads", None)
    with pytest.raises(CacheError, match=rf"GB as {form} .* 0\.0 GB free; free some, lower short_side"):
        prepare(index, spec_of(tiny_root, store=form), tmp_path)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


GB = 10**9


CHOICES = [
    (Room(memory_bytes=64 * GB, free_bytes=64 * GB), ("raw", "raw")),
    (Room(memory_bytes=6_000_000, free_bytes=64 * GB), ("raw", "jpeg")),
    (Room(memory_bytes=4_000_000, free_bytes=64 * GB), ("i420", "jpeg")),
    (Room(memory_bytes=64 * GB, free_bytes=4_600_000), ("i420", "raw")),
    (Room(memory_bytes=1_800_000, free_bytes=64 * GB), ("jpeg", "jpeg")),
    (Room(memory_bytes=0, free_bytes=64 * GB), ("tinyvideo", "jpeg")),
]
"""For 2.4 MB of raw frames and 1.5 MB of flow, which take half of the room together."""


@pytest.mark.parametrize("case", range(len(CHOICES)))
def test_the_form_follows_size_memory_and_disk(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: int
) -> None:
    room, forms = CHOICES[case]
    spec = spec_of(tiny_root, flow="dis")
    monkeypatch.setattr(Room, "at", classmethod(lambda cls, folder: room))
    found = estimates(index, spec, tmp_path)
    assert found["rgb"] is not None
    assert found["flow"] is not None
    assert (found["rgb"].form, found["flow"].form) == forms
    stores = prepare(index, spec, tmp_path)
    assert (stores["rgb"].manifest.form, stores["flow"].manifest.form) == forms
    assert stores["rgb"].manifest.settings["why"] == found["rgb"].why


def test_a_chosen_form_is_kept_by_all_who_share_the_folder(
    index: Index, spec: DatasetSpec, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Room, "at", classmethod(lambda cls, folder: Room(memory_bytes=5_000_000, free_bytes=GB)))
    first = prepare(index, spec, tmp_path)["rgb"]
    monkeypatch.undo()
    prepare(index, spec_of(tiny_root, store="raw"), tmp_path)
    assert prepare(index, spec, tmp_path)["rgb"].folder == first.folder
    (note,) = tmp_path.glob("*.auto")
    note.write_text(json.dumps({"form": "paper"}))
    with pytest.raises(CacheError, match=r"unknown form 'paper'; delete it"):
        prepare(index, spec, tmp_path)


def test_a_video_that_changed_since_the_scan_is_named(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(tiny_root, root)
    index = scan(root)
    changed = root / index.usable[3].path
    for form in FORMS:
        for frames in (decode_video(changed)[:-1], np.zeros((200, 48, 64, 3), np.uint8)):
            write_video(changed, frames)
            with pytest.raises(CacheError, match=f"{changed.name} has changed since it was scanned"):
                prepare(index, spec_of(root, store=form), tmp_path / "cache")
        write_video(changed, decode_video(tiny_root / index.usable[3].path))


def test_a_video_in_whose_place_another_of_the_same_shape_came_is_named_and_never_kept(
    tiny_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(tiny_root, root)
    index = scan(root)
    clip = index.usable[3]
    whole = (root / clip.path).read_bytes()
    write_video(root / clip.path, 255 - decode_video(root / clip.path))
    for _ in range(2):  # what the first call left is not taken for whole by the second
        with pytest.raises(CacheError, match=f"{Path(clip.path).name} has changed since it was scanned"):
            prepare(index, spec_of(root, store="raw"), tmp_path / "cache")
    (root / clip.path).write_bytes(whole)
    store = prepare(index, spec_of(root, store="raw"), tmp_path / "cache")["rgb"]
    expected = prepare(scan(tiny_root), spec_of(tiny_root, store="raw"), tmp_path / "other")["rgb"]
    (ours,), (theirs,) = store.folder.glob("shard-*.bin"), expected.folder.glob("shard-*.bin")
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_folder_that_cannot_be_written_is_named(index: Index, spec: DatasetSpec, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="file cannot be written"):
        prepare(index, spec, tmp_path / "file")


@given(st.integers(1, 400), st.integers(1, 400))
def test_kept_frames_are_the_middles_of_equal_parts(n_frames: int, most: int) -> None:
    kept = kept_frames(n_frames, most)
    assert len(kept) == min(n_frames, most)
    assert (np.diff(kept) > 0).all()
    part = n_frames / len(kept)
    assert all(i * part <= number + 1 and number < (i + 1) * part for i, number in enumerate(kept))
    assert kept[0] + kept[-1] in (n_frames - 1, n_frames, n_frames - 2)


@pytest.mark.parametrize("form", FORMS)
def test_only_kept_frames_are_prepared(index: Index, tiny_root: Path, tmp_path: Path, form: Any) -> None:
    store = prepare(index, spec_of(tiny_root, store=form, frames_kept="uniform:7"), tmp_path / "part")["rgb"]
    whole = prepare(index, spec_of(tiny_root, store="raw"), tmp_path / "whole")["rgb"]
    for clip in index.usable[:4]:
        assert store.shape(clip.id) == (7, 32, 43)
        wanted = whole.video(clip.id)[kept_frames(clip.n_frames, 7)].astype(int)
        assert np.abs(store.video(clip.id) - wanted).mean() < (1 if form == "raw" else 6)


def test_single_images_are_prepared_and_have_no_flow(tmp_path: Path) -> None:
    write_frames(tmp_path, moving(3, 40, 60))
    index = index_of(tmp_path, *(listed(f"img_{n:05d}.png", kind="image") for n in (1, 2, 3)))
    for form in FORMS:
        store = prepare(index, spec_of(tmp_path, store=form), tmp_path / "cache")["rgb"]
        assert [store.shape(clip.id) for clip in index.clips] == [(1, 32, 48)] * 3
    with pytest.raises(FlowError, match="is a single image, which has no optical flow"):
        prepare(index, spec_of(tmp_path, flow="dis"), tmp_path / "cache")


def test_missing_weights_are_named(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match=r"flow_weights is .*which cannot be read"):
        prepare(index, spec_of(tiny_root, flow="raft", flow_weights=tmp_path / "no.pt"), tmp_path)


def test_a_prepared_lmdb_is_a_data_set(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    folder = prepare(index, spec_of(tiny_root, store="lmdb"), tmp_path)["rgb"].folder
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        meta = json.loads(transaction.get(b"__meta__") or b"")
    assert {clip["id"]: clip["n_frames"] for clip in meta["clips"]} == {clip.id: clip.n_frames for clip in index.usable}
    again = scan(folder, name="lmdb")
    assert [(c.id, c.label, c.group, c.official, c.n_frames) for c in again.clips] == [
        (c.id, c.label, c.group, c.official, c.n_frames) for c in index.usable
    ]
    frames = next(clip_frames(again.clips[5], folder))
    expected = decode_video(tiny_root / index.usable[5].path, short_side=32)[0]
    assert np.abs(frames.astype(int) - expected).mean() < 6
    dataset = open_dataset(spec_of(folder, name="lmdb"), cache_dir=tmp_path)
    assert dataset.class_names == index.class_names


def test_names_that_are_not_utf8_and_ids_that_are_too_long_for_a_database(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.avi")
    write_video(tmp_path / name, moving(4, 32, 32))
    for form in FORMS:
        store = prepare(index_of(tmp_path, listed(name)), spec_of(tmp_path, store=form), tmp_path / "cache")["rgb"]
        assert store.video(name).shape == (4, 32, 32, 3)
    long = index_of(tmp_path, listed(name, id="x" * 600))
    with pytest.raises(InvalidSpecError, match="too long for a key of an LMDB: choose the store jpeg"):
        prepare(long, spec_of(tmp_path, store="lmdb"), tmp_path / "cache")


def test_the_table_of_a_large_cache_opens_at_once(tmp_path: Path) -> None:
    n_clips, n_frames, size = 13_320, 180, 128 * 170 * 3
    ids = tuple(f"HandstandPushups/v_HandStandPushups_g{i % 25:02d}_c{i:05d}" for i in range(n_clips))
    per_shard = 8
    shards = -(-n_clips // per_shard)
    Manifest(
        form="raw",
        channels=3,
        settings={},
        ids=ids,
        n_frames=(n_frames,) * n_clips,
        height=(128,) * n_clips,
        width=(170,) * n_clips,
        shard=tuple(i // per_shard for i in range(n_clips)),
        offset=tuple(i % per_shard * n_frames * size for i in range(n_clips)),
        first=tuple(i * n_frames for i in range(n_clips)),
        shard_bytes=(per_shard * n_frames * size,) * shards,
    ).save(tmp_path)
    for number in range(shards):
        with (tmp_path / shard_name(number)).open("wb") as file:
            file.truncate(per_shard * n_frames * size)
    open_store(tmp_path)
    taken = []
    for _ in range(3):
        begun = time.process_time()
        store = open_store(tmp_path)
        assert store.shape(ids[-1]) == (n_frames, 128, 170)
        taken.append(time.process_time() - begun)
    assert min(taken) < 0.1
