"""The cache: the same frames as decoding, whoever builds it and however often it is killed."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data import Index, scan
from data import cache as cache_module
from data.cache import FrameCache, cache_folder, estimate_bytes, prepare_cache
from data.decode import decode_video
from data.errors import CacheError
from data.index import make_index
from data.synthetic import write_video


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> Index:
    return scan(tiny_root)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_frames_are_those_of_sequential_decoding(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    cache = prepare_cache(index, tiny_root, tmp_path, short_side=32)
    assert len(cache) == len(index.usable) == 24
    for clip in index.usable:
        expected = decode_video(tiny_root / clip.path, short_side=32)
        assert expected.shape[1:] == (32, 43, 3)
        np.testing.assert_array_equal(cache.video(clip.id), expected)
    assert estimate_bytes(index, 32) == sum(file.stat().st_size for file in cache.folder.glob("shard-*.bin"))


def test_frames_of_a_real_clip_with_reordered_timestamps(shared_data: Path, tmp_path: Path) -> None:
    name = "TrumanShow_wave_f_nm_np1_fr_med_26.avi"
    for group, side in ((1, "test"), (2, "train")):
        video = tmp_path / "videos" / "wave" / f"v_wave_g{group:02d}_c01.avi"
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_data / "real_clips" / name, video)
        line = f"wave/{video.name}" + (" 1" if side == "train" else "")
        (tmp_path / f"{side}list01.txt").write_text(line)
    (tmp_path / "classInd.txt").write_text("1 wave\n")
    index = scan(tmp_path)
    cache = prepare_cache(index, tmp_path, tmp_path / "cache", short_side=240)
    unscaled = cache.video("wave/v_wave_g01_c01")
    assert unscaled.shape == (48, 240, 432, 3)
    np.testing.assert_array_equal(unscaled, decode_video(shared_data / "real_clips" / name))


def test_the_cache_cannot_be_written_through_a_view(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    cache = prepare_cache(index, tiny_root, tmp_path, short_side=32)
    with pytest.raises(ValueError, match="read-only"):
        cache.video(index.usable[0].id)[:] = 0


def test_many_small_shards_hold_the_same_frames(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare_cache(index, tiny_root, tmp_path / "a", short_side=32)
    monkeypatch.setattr(cache_module, "SHARD_BYTES", 300_000)
    parts = prepare_cache(index, tiny_root, tmp_path / "b", short_side=32)
    assert len(list(parts.folder.glob("shard-*.bin"))) > 3
    for clip in index.usable:
        np.testing.assert_array_equal(parts.video(clip.id), whole.video(clip.id))


def test_a_second_preparation_decodes_nothing(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_cache(index, tiny_root, tmp_path, short_side=32)
    monkeypatch.setattr(cache_module, "decode_frames", None)
    assert len(prepare_cache(index, tiny_root, tmp_path, short_side=32)) == 24


def test_the_key_follows_content_and_preparation(index: Index, tmp_path: Path) -> None:
    fewer = make_index(name=index.name, class_names=index.class_names, clips=index.clips[1:])
    folders = {
        cache_folder(index, tmp_path, 32),
        cache_folder(index, tmp_path, 64),
        cache_folder(fewer, tmp_path, 32),
    }
    assert len(folders) == 3


def test_progress_counts_every_clip_once(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    prepare_cache(index, tiny_root, tmp_path, short_side=32, progress=lambda *step: told.append(step))
    assert told == [("prepare", n, 24) for n in range(1, 25)]


KILLED_MIDWAY = """
import os, sys, threading
from pathlib import Path
from data import scan, cache

os.cpu_count = lambda: 1  # one clip after the other
root, cache_dir = map(Path, sys.argv[1:])
begun, decode = 0, cache.decode_frames

def decode_until_told(path, *, short_side):
    global begun
    begun += 1
    for number, frame in enumerate(decode(path, short_side=short_side)):
        if begun > 10 and number == 3:
            # Stands in the middle of a clip, half of its frames unwritten, until it is killed.
            print("midway", flush=True)
            threading.Event().wait()
        yield frame

cache.decode_frames = decode_until_told
cache._CHUNK_FRAMES = 2
cache.prepare_cache(scan(root), root, cache_dir, short_side=32)
"""


def test_a_killed_build_goes_on_and_gives_the_same_bytes(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [sys.executable, "-c", KILLED_MIDWAY, str(tiny_root), str(tmp_path / "killed")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"midway\n"
        process.kill()
    folder = cache_folder(index, tmp_path / "killed", 32)
    building = folder.with_name(f"{folder.name}.building")
    assert building.is_dir()
    assert not folder.exists()

    decoded = []

    def counted(path: Path, *, short_side: int) -> object:
        decoded.append(path)
        return decode_frames(path, short_side=short_side)

    decode_frames = cache_module.decode_frames
    monkeypatch.setattr(cache_module, "decode_frames", counted)
    prepare_cache(index, tiny_root, tmp_path / "killed", short_side=32)
    assert len(decoded) == 14  # the ten that were finished are not done again
    straight = prepare_cache(index, tiny_root, tmp_path / "straight", short_side=32)
    assert contents(folder) == contents(straight.folder)
    assert not building.exists()


def test_bytes_lost_after_they_were_journaled_are_written_again(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = prepare_cache(index, tiny_root, tmp_path / "straight", short_side=32)
    monkeypatch.setattr(cache_module._Build, "_finish", lambda self: None)
    with pytest.raises(CacheError):
        prepare_cache(index, tiny_root, tmp_path / "lost", short_side=32)
    monkeypatch.undo()
    folder = cache_folder(index, tmp_path / "lost", 32)
    shard = folder.with_name(f"{folder.name}.building") / "shard-000.bin"
    content = bytearray(shard.read_bytes())
    content[100_000:200_000] = bytes(100_000)
    shard.write_bytes(content)
    prepare_cache(index, tiny_root, tmp_path / "lost", short_side=32)
    assert contents(folder) == contents(straight.folder)


BUILT_BESIDE = """
import sys
from pathlib import Path
from data import scan, cache

root, cache_dir = map(Path, sys.argv[1:])
index = scan(root)
print("ready", flush=True)
sys.stdin.readline()
built = []
cache.prepare_cache(index, root, cache_dir, short_side=32, progress=lambda *step: built.append(step))
print(len(built), flush=True)
"""


def test_of_two_processes_one_builds_and_both_read(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", BUILT_BESIDE, str(tiny_root), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(arguments, **pipes) for _ in range(2)]  # type: ignore[call-overload]  # keywords by name
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(told) == [0, 24]
    cache = FrameCache.open(cache_folder(index, tmp_path, 32))
    clip = index.usable[-1]
    expected = decode_video(tiny_root / clip.path, short_side=32)
    np.testing.assert_array_equal(cache.video(clip.id), expected)


def test_a_disk_that_is_too_small_is_said_before_work(
    index: Index, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr(cache_module, "decode_frames", None)
    with pytest.raises(CacheError, match=r"0\.0 GB free; free some, or lower short_side"):
        prepare_cache(index, tiny_root, tmp_path, short_side=32)


def test_a_video_that_changed_since_the_scan_is_named(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(tiny_root, root)
    index = scan(root)
    changed = root / index.usable[3].path
    write_video(changed, decode_video(changed)[:-1])
    with pytest.raises(CacheError, match=f"{changed.name} has changed since it was scanned"):
        prepare_cache(index, root, tmp_path / "cache", short_side=32)


def test_a_damaged_cache_is_refused(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    folder = prepare_cache(index, tiny_root, tmp_path, short_side=32).folder
    with (folder / "shard-000.bin").open("ab") as shard:
        shard.write(b"x")
    with pytest.raises(CacheError, match="is not as it was built; delete"):
        prepare_cache(index, tiny_root, tmp_path, short_side=32)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CacheError, match="cannot be read"):
        FrameCache.open(folder)


def test_a_folder_that_cannot_be_written_is_named(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="file cannot be written"):
        prepare_cache(index, tiny_root, tmp_path / "file", short_side=32)


def test_a_pickled_cache_is_small_and_reads_the_same(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    cache = prepare_cache(index, tiny_root, tmp_path, short_side=32)
    first = cache.video(index.usable[0].id)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 20_000
    again: FrameCache = pickle.loads(pickled)  # noqa: S301 - made two lines above
    np.testing.assert_array_equal(again.video(index.usable[0].id), first)


def test_an_unknown_clip_is_an_error(index: Index, tiny_root: Path, tmp_path: Path) -> None:
    cache = prepare_cache(index, tiny_root, tmp_path, short_side=32)
    with pytest.raises(CacheError, match="holds no clip 'Run/x'"):
        cache.video("Run/x")
