"""torchcodec beside PyAV: equal to the bit where nothing is reduced, or not used; a sentence where it does not load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import DatasetSpec
from data.errors import DecoderUnavailableError
from data.preparation.bench import measure_decoders
from data.preparation.prepare import plans, prepare
from data.reading import torchcodec_frames as module
from data.reading.packed import PackedVideo, tar_member
from data.reading.torchcodec_frames import torchcodec_fault, torchcodec_frames
from data.reading.video import decode_frames, measure_video
from hpo.trial import Fault
from tests.unit.data.encoded import index_of, listed, moving
from workers.training.faults import fault_of

from .test_turning import MATRICES, shown
from .test_video import encode

needs_torchcodec = pytest.mark.skipif(
    torchcodec_fault() is not None, reason=f"torchcodec cannot be used: {torchcodec_fault()}"
)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without torchcodec."""
    for name in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    torchcodec_fault.cache_clear()
    yield
    torchcodec_fault.cache_clear()


def both(path: Path, **part: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of both decoders, of the part of a video."""
    whole = {name: part[name] for name in ("start", "end") if name in part}
    measured = measure_video(path, **whole)
    size = (measured.width, measured.height)
    theirs = torchcodec_frames(path, counted=measured.n_frames, size=size, turned=measured.turned, **part)
    return np.stack(list(decode_frames(path, **part))), np.stack(list(theirs))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos that were left to PyAV."""
    left: list[str] = []

    def decode(file: Any, **options: Any) -> Iterator[Any]:
        left.append(Path(str(file)).name)
        return decode_frames(file, **options)

    monkeypatch.setattr(module, "decode_frames", decode)
    return left


@needs_torchcodec
@pytest.mark.parametrize("size", [(48, 80), (45, 81)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_are_equal_to_the_bit_where_nothing_is_reduced(
    suffix: str, size: tuple[int, int], tmp_path: Path, used: list[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    encode(path, moving(20, *size), "libx264", times=[2 * n + n % 2 for n in range(20)], bf="3", qp="10")
    for part in ({}, {"start": 5, "end": 17}, {"keep": {0, 3, 19}}, {"start": 4, "end": 20, "keep": {1, 15}}):
        ours, theirs = both(path, **part)
        np.testing.assert_array_equal(ours, theirs)
    assert used == []
    ours, theirs = both(path, short_side=24)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 2


@needs_torchcodec
@pytest.mark.parametrize("name", MATRICES)
def test_videos_that_are_turned_or_mirrored_are_shown_alike(name: str, tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", moving(6, 48, 80), "libx264", qp="10")
    np.testing.assert_array_equal(*both(shown(tmp_path / "a.mp4", name)))


@needs_torchcodec
def test_what_torchcodec_would_lose_frames_of_is_left_to_pyav(
    tmp_path: Path, used: list[str], shared_data: Path
) -> None:
    encode(tmp_path / "a.avi", moving(20, 48, 80), "mpeg4", bf="2")
    np.testing.assert_array_equal(*both(tmp_path / "a.avi"))
    np.testing.assert_array_equal(*both(shared_data / "real_clips" / "RATRACE_wave_f_nm_np1_fr_goo_37.avi"))
    assert used == ["a.avi", "RATRACE_wave_f_nm_np1_fr_goo_37.avi"]
    encode(tmp_path / "b.mkv", moving(20, 48, 80), "libx264", times=[n + n % 3 // 2 for n in range(20)], bf="3")
    np.testing.assert_array_equal(*both(tmp_path / "b.mkv"))
    assert used.pop() == "b.mkv", "pairs of frames have one time"
    encode(tmp_path / "b.mp4", moving(20, 48, 80), "libx264")
    assert len(list(torchcodec_frames(tmp_path / "b.mp4", counted=19, size=(80, 48)))) == 20
    assert len(list(torchcodec_frames(tmp_path / "b.mp4", counted=20, size=(48, 80)))) == 20
    assert used[2:] == ["b.mp4", "b.mp4"]


@needs_torchcodec
def test_videos_within_files_are_read_in_place(tmp_path: Path, used: list[str]) -> None:
    encode(tmp_path / "a.mp4", moving(6, 48, 80), "libx264")
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.tar").write_bytes(b"x" * 700 + content + b"x" * 700)
    packed = PackedVideo(path=tmp_path / "a.tar", member=tar_member("a.mp4", 700, len(content)))
    ours = np.stack(list(decode_frames(tmp_path / "a.mp4")))
    np.testing.assert_array_equal(ours, np.stack(list(torchcodec_frames(packed, counted=6, size=(80, 48)))))
    assert used == []


@needs_torchcodec
def test_caches_of_two_decoders_are_two(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", moving(6, 48, 80), "libx264")
    index = index_of(tmp_path, listed("a.mp4"))
    spec = DatasetSpec(name="class_folders", root=tmp_path, store="raw")
    other = spec.model_copy(update={"decoder": "torchcodec"})
    first, second = (prepare(index, each, tmp_path / "cache")["rgb"] for each in (spec, other))
    assert first.folder != second.folder
    assert second.manifest.settings["decoder"] == "torchcodec"
    assert [each.decoder for each in measure_decoders(index, spec, seconds=0) if each.frames_per_second] == [
        "pyav",
        "torchcodec",
    ]


@needs_torchcodec
def test_the_bench_says_how_many_videos_are_left_to_pyav(tmp_path: Path) -> None:
    for name, codec in (("a.mp4", "libx264"), ("b.avi", "mpeg4")):
        encode(tmp_path / name, moving(6, 48, 80), codec)
    spec = DatasetSpec(name="class_folders", root=tmp_path)
    pyav, other = measure_decoders(index_of(tmp_path, listed("a.mp4"), listed("b.avi")), spec, seconds=0)
    assert (pyav.videos, pyav.left_to_pyav) == (2, 0)
    assert other.frames_per_second is not None
    assert (other.videos, other.left_to_pyav) == (2, 1)
    _, none = measure_decoders(index_of(tmp_path, listed("b.avi")), spec, seconds=0)
    assert (none.frames_per_second, none.videos, none.left_to_pyav) == (None, 1, 1)
    assert none.fault == "it leaves each of the 1 videos that were tried to PyAV"


def test_pyav_is_what_nobody_names(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", moving(6, 48, 80), "libx264")
    index = index_of(tmp_path, listed("a.mp4"))
    spec = DatasetSpec(name="class_folders", root=tmp_path)
    named = spec.model_copy(update={"decoder": "pyav"})
    places = {plans(index, each, tmp_path)["rgb"].place for each in (spec, named)}
    assert len(places) == 1
    assert spec.model_dump(exclude_none=True).get("decoder") is None, "earlier releases do not know the field"


@pytest.mark.usefixtures("missing")
def test_where_torchcodec_does_not_load_it_is_said(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", moving(6, 48, 80), "libx264")
    index = index_of(tmp_path, listed("a.mp4"))
    spec = DatasetSpec(name="class_folders", root=tmp_path, decoder="torchcodec")
    with pytest.raises(DecoderUnavailableError) as error:
        prepare(index, spec, tmp_path / "cache")
    assert str(error.value).startswith("torchcodec cannot decode here, the package torchcodec")
    assert "leave `decoder` out" in str(error.value)
    assert fault_of(error.value) is Fault.FILES, "another worker may have it"
    pyav, other = measure_decoders(index, spec, seconds=0)
    assert pyav.frames_per_second is not None
    assert (other.decoder, other.frames_per_second) == ("torchcodec", None)
    assert "torchcodec" in other.fault
