"""Every form gives back the frames that were put in, whatever part of them is asked for and in whatever order."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import CacheError
from data.index.records import Index
from data.preparation.prepare import prepare
from data.specs import DatasetSpec
from data.stores.forms import FORMS, open_store
from data.stores.protocol import Box
from data.stores.shards import ShardStore
from tests.unit.data.encoded import index_of, listed, moving, write_frames

SIZES = {"even": (40, 30, 44), "odd": (27, 31, 45), "short": (2, 16, 17), "thin": (13, 17, 1)}
"""Frames, height and width."""
FRAMES = {name: moving(*size, seed=number) for number, (name, size) in enumerate(SIZES.items())}
LEAST_PSNR = {"raw": np.inf, "i420": 36, "jpeg": 40, "lmdb": 40, "tinyvideo": 34}
"""Decibels on pictures whose hue changes every few pixels: the worst there is for chroma at half size."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    for name, frames in FRAMES.items():
        write_frames(root / name, frames)
    return root


@pytest.fixture(scope="module")
def index(folder: Path) -> Index:
    return index_of(folder, *(listed(name, kind="frames") for name in FRAMES))


@pytest.fixture(scope="module", params=FORMS)
def store(request: pytest.FixtureRequest, index: Index, folder: Path) -> ShardStore:
    spec = DatasetSpec(name="ucf101", root=folder, short_side=64, store=request.param)
    return prepare(index, spec, folder / "cache")["rgb"]


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    error = np.square(a.astype(float) - b).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def test_frames_are_within_the_error_of_the_form(store: ShardStore) -> None:
    assert (len(store), store.channels) == (4, 3)
    for name, frames in FRAMES.items():
        assert name in store
        assert store.shape(name) == frames.shape[:3]
        assert psnr(store.video(name), frames) >= LEAST_PSNR[store.manifest.form]


def test_the_size_is_that_of_the_files(store: ShardStore) -> None:
    files = [file for file in store.folder.iterdir() if file.suffix in {".bin", ".mdb"}]
    assert store.n_bytes == sum(file.stat().st_size for file in files) > 0


def test_frames_stay_in_their_order(store: ShardStore) -> None:
    for name in ("even", "odd"):
        frames = FRAMES[name].astype(float)
        nearest = [np.abs(frames - frame).mean(axis=(1, 2, 3)).argmin() for frame in store.video(name)]
        assert nearest == list(range(len(frames)))


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any], Box]:
    name = draw(st.sampled_from(list(SIZES)))
    n_frames, height, width = SIZES[name]
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    box = Box(top=top, left=left, height=draw(st.integers(1, height - top)), width=draw(st.integers(1, width - left)))
    return name, np.array(draw(st.lists(st.integers(0, n_frames - 1), min_size=1, max_size=12))), box


@settings(max_examples=40, deadline=None)
@given(request=requests())
def test_a_part_is_that_part_of_the_whole(store: ShardStore, request: tuple[str, np.ndarray[Any, Any], Box]) -> None:
    name, indices, box = request
    target = np.zeros((len(indices), box.height, box.width, 3), np.uint8)
    store.read_into(name, indices, box, target)
    whole = store.video(name)[indices]
    part = whole[:, box.top : box.top + box.height, box.left : box.left + box.width]
    np.testing.assert_array_equal(target, part)


def test_a_part_of_a_larger_array_is_filled(store: ShardStore) -> None:
    target = np.zeros((3, 20, 30, 3), np.uint8)
    store.read_into("even", np.array([5, 1, 5]), Box(top=3, left=5, height=9, width=11), target[:, 4:13, 6:17])
    np.testing.assert_array_equal(target[:, 4:13, 6:17], store.video("even")[[5, 1, 5], 3:12, 5:16])
    target[:, 4:13, 6:17] = 0
    assert not target.any()


def test_pickled_stores_are_small_and_read_the_same(store: ShardStore) -> None:
    first = store.video("odd")
    pickled = pickle.dumps(store)
    assert len(pickled) < 3000
    again: ShardStore = pickle.loads(pickled)  # noqa: S301 - made two lines above
    np.testing.assert_array_equal(again.video("odd"), first)


def test_threads_may_read_at_once(store: ShardStore) -> None:
    expected = {name: store.video(name) for name in FRAMES}
    fresh = open_store(store.folder)
    names = list(FRAMES) * 8
    with ThreadPoolExecutor(4) as pool:
        for name, video in zip(names, pool.map(fresh.video, names), strict=True):
            np.testing.assert_array_equal(video, expected[name])


def test_an_unknown_clip_is_an_error(store: ShardStore) -> None:
    assert "Run/x" not in store
    for ask in (store.video, store.shape):
        with pytest.raises(CacheError, match="does not contain clip 'Run/x'"):
            ask("Run/x")


def test_the_mapped_frames_cannot_be_written(index: Index, folder: Path) -> None:
    spec = DatasetSpec(name="ucf101", root=folder, short_side=64, store="raw")
    with pytest.raises(ValueError, match="read-only"):
        prepare(index, spec, folder / "cache")["rgb"].video("even")[:] = 0


def test_tiny_videos_give_what_ffmpeg_decodes_from_the_start(index: Index, folder: Path) -> None:
    spec = DatasetSpec(name="ucf101", root=folder, short_side=64, store="tinyvideo")
    store = prepare(index, spec, folder / "cache")["rgb"]
    shard = (store.folder / "shard-00000.bin").read_bytes()
    row = store.manifest.rows["even"]
    sizes = np.load(store.folder / "sizes.npy")[store.manifest.first[row] :][:40]
    start = store.manifest.offset[row]
    (folder / "even.m4v").write_bytes(shard[start : start + int(sizes.sum())])
    with av.open(str(folder / "even.m4v"), format="m4v") as container:
        frames = list(container.decode(video=0))
    assert [frame.pict_type for frame in frames[:25]] == [1 if n % 12 == 0 else 2 for n in range(25)]
    decoded = [cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420) for frame in frames]
    np.testing.assert_array_equal(store.video("even"), np.stack(decoded))


DAMAGES: dict[str, tuple[str, str, Callable[[bytes], bytes] | None, str]] = {
    "longer": ("raw", "shard-00000.bin", lambda content: content + b"x", "changed after it was built"),
    "shorter": ("i420", "shard-00000.bin", lambda content: content[:-1], "changed after it was built"),
    "sizes missing": ("jpeg", "sizes.npy", None, "is missing"),
    "database missing": ("lmdb", "data.mdb", None, "is missing"),
    "manifest cut": ("raw", "manifest.json", lambda content: content[:-1], "cannot be read"),
    "manifest of nothing": ("raw", "manifest.json", lambda _: b"[]", "cannot be read"),
    "no images": ("jpeg", "shard-00000.bin", lambda content: bytes(len(content)), "is damaged"),
    "no packets": ("tinyvideo", "shard-00000.bin", lambda content: bytes(len(content)), "is damaged"),
    "no database": ("lmdb", "data.mdb", lambda content: b"x" * len(content), "cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_cache_is_refused(index: Index, folder: Path, tmp_path: Path, case: str) -> None:
    form, file, damage, message = DAMAGES[case]
    spec = DatasetSpec(name="ucf101", root=folder, short_side=64, store=form)  # type: ignore[arg-type]  # one of FORMS
    damaged = prepare(index, spec, tmp_path)["rgb"].folder / file
    if damage is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damage(damaged.read_bytes()))
    with pytest.raises(CacheError, match=f"{message}.*delete .*{form}"):
        open_store(damaged.parent).video("even")
