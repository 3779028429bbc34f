"""Shards and tables: what is written reads back here and in the programs whose form it is, and the other way round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data import scan
from data.errors import DatasetError, ExportError
from data.export import packed
from data.export.lists import export
from data.index.records import Index
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving

from ..importers.trees import lay_out

FORMS = ("webdataset", "videofolder", "parquet")
CLASSES = ("Walk slowly", "Run", "Üben")
"""Not in alphabetical order, and with what names of files must not have."""
ORACLES = """
import json, sys
from pathlib import Path
import datasets, webdataset
out, back, cache = map(Path, sys.argv[1:])
datasets.disable_progress_bars()
told = {"webdataset": []}
shards = str(out / "webdataset" / "train-{000000..000001}.tar")
with webdataset.ShardWriter(str(back / "webdataset" / "train-%06d.tar"), maxcount=2, verbose=0) as writer:
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        video = sample["avi"]
        told["webdataset"].append([int(sample["cls"]), json.loads(sample["json"])["group"], len(video)])
        writer.write({"__key__": sample["__key__"], "avi": video, "cls": int(sample["cls"]), "json": sample["json"]})
for form in ("parquet", "videofolder"):
    sides = datasets.load_dataset(form, data_dir=str(out / form), cache_dir=str(cache))
    told[form] = {}
    for side, rows in sides.items():
        names = rows.features["label"].names if form == "parquet" else None
        rows = rows.cast_column("video", datasets.Video(decode=False))
        told[form][side] = [
            [names[row["label"]] if names else row["label"], row["group"] or "",
             len(row["video"]["bytes"] or Path(row["video"]["path"]).read_bytes())]
            for row in rows
        ]
        if form == "parquet":
            (back / form).mkdir(parents=True, exist_ok=True)
            rows.to_parquet(str(back / form / f"{side}.parquet"))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Path]:
    """A set in the layout of UCF101 with a second split, of which the videos decode."""
    root = tmp_path_factory.mktemp("original")
    names = [f"{name}/v_{name}_g{group:02d}_c01.avi" for name in CLASSES for group in (1, 2)]
    for number, name in enumerate(names):
        (root / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / "videos" / name, moving(3, 16, 24, seed=number))
    train, test = names[::2], names[1::2]
    lines = [f"{name} {CLASSES.index(name.split('/')[0]) + 1}" for name in names]
    lists = {"classInd.txt": "".join(f"{n} {name}\n" for n, name in enumerate(CLASSES, start=1))}
    for split, listed in (("01", train), ("02", test)):
        lists[f"trainlist{split}.txt"] = "".join(f"{line}\n" for line in lines if line.rpartition(" ")[0] in listed)
        lists[f"testlist{split}.txt"] = "".join(f"{name}\n" for name in names if name not in listed)
    lay_out(root / "ucfTrainTestlist", lists)
    return scan(root), root


def facts(index: Index, split: int = 1) -> Counter[tuple[Any, ...]]:
    """Return what may not get lost on the way: how many clips are of one kind."""
    return Counter(
        (
            clip.label,
            index.class_names[clip.label],
            clip.group.rpartition("/")[2],
            clip.subset(split),
            clip.measured.sha1,
            clip.measured.frames_hash,
            clip.n_frames,
        )
        for clip in index.usable
    )


@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_an_export_reads_back_as_what_was_exported(
    form: Any, split: int, original: tuple[Index, Path], tmp_path: Path
) -> None:
    index, root = original
    written = export(index, root, tmp_path, form, split=split)
    again = scan(tmp_path)
    assert again.name == form
    assert again.class_names == CLASSES
    assert (written.clips, len(again.usable)) == (6, 6)
    assert facts(again) == Counter({(*fact,): count for fact, count in facts(index, split).items()})
    assert any("one split" in note for note in written.notes)
    if form != "videofolder":
        with pytest.raises(ExportError, match="export into an empty folder"):
            export(index, root, tmp_path, form)


def test_equal_exports_have_equal_bytes(
    original: tuple[Index, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "SHARD_BYTES", 12_000)
    index, root = original
    for form in ("webdataset", "parquet"):
        first = export(index, root, tmp_path / "a" / form, form)
        second = export(index, root, tmp_path / "b" / form, form)
        assert len(first.lists) > 2, "several shards of a side"
        assert [path.read_bytes() for path in first.lists] == [path.read_bytes() for path in second.lists]
        assert facts(scan(tmp_path / "a" / form)) == facts(index)


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_an_export_that_fails_leaves_no_part_that_looks_whole(
    form: Any, original: tuple[Index, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, root = original
    monkeypatch.setattr(packed, "SHARD_BYTES", 12_000)
    reads = iter(range(len(index.usable) - 1))
    read = packed.PackedClip.read

    def read_all_but_one(self: packed.PackedClip) -> bytes:
        if next(reads, None) is None:
            raise OSError("the disk is gone")
        return read(self)

    with monkeypatch.context() as patched:
        patched.setattr(packed.PackedClip, "read", read_all_but_one)
        with pytest.raises((OSError, DatasetError), match="the disk is gone"):
            export(index, root, tmp_path, form)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(export(index, root, tmp_path, form).lists) > 2


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_packed_videos_are_unpacked_by_other_exports(form: Any, original: tuple[Index, Path], tmp_path: Path) -> None:
    index, root = original
    export(index, root, tmp_path / "packed", form)
    export(scan(tmp_path / "packed"), tmp_path / "packed", tmp_path / "lists", "path_lists")
    assert facts(scan(tmp_path / "lists")).total() == 6
    contents = {path.read_bytes() for path in (root / "videos").rglob("*.avi")}
    assert {path.read_bytes() for path in (tmp_path / "lists").rglob("*.avi")} == contents


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_a_shard_that_was_damaged_in_place_costs_one_clip(
    form: Any, original: tuple[Index, Path], tmp_path: Path
) -> None:
    index, root = original
    shard = export(index, root, tmp_path / form, form).lists[0]
    memory = tmp_path / "memory.jsonl"
    before = scan(tmp_path / form, memory=memory)
    content, stat = bytearray(shard.read_bytes()), shard.stat()
    start = content.index(b"RIFF") + 4
    content[start : start + 600] = bytes(600)
    shard.write_bytes(content)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if form == "webdataset":
        assert scan(tmp_path / form, memory=memory).hash == before.hash, "nothing is read that looks the same"
        after = scan(tmp_path / form, memory=memory, every_byte=True)
        assert sum(not clip.usable for clip in after.clips) == 1
        assert f"{shard}: " in after.problems()[0].note


def test_other_programs_read_what_is_written_and_what_they_write_is_read(
    original: tuple[Index, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, root = original
    monkeypatch.setattr(packed, "SHARD_BYTES", 2 * max(path.stat().st_size for path in root.rglob("*.avi")))
    for form in FORMS:
        export(index, root, tmp_path / "out" / form, form)  # type: ignore[arg-type]  # a tuple of texts
    (tmp_path / "back" / "webdataset").mkdir(parents=True)
    places = [str(tmp_path / name) for name in ("out", "back", "cache")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ORACLES, *places],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    sizes = {clip.id: (root / clip.path).stat().st_size for clip in index.usable}
    on = {
        side: sorted([c.class_name, c.group, sizes[c.id]] for c in index.usable if c.subset(1) == side)
        for side in ("train", "test")
    }
    assert sorted([CLASSES[label], group, size] for label, group, size in told["webdataset"]) == on["train"]
    for form in ("parquet", "videofolder"):
        assert {side: sorted(rows) for side, rows in told[form].items()} == on
    again = scan(tmp_path / "back" / "parquet")
    assert facts(again) == facts(index)
    shards = scan(tmp_path / "back" / "webdataset")
    assert facts(shards) == Counter({fact: n for fact, n in facts(index).items() if fact[3] == "train"})
