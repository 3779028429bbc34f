"""One small real set in every layout: recognised, decoded, split and prepared alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from data import ClipSpec, DatasetSpec, SplitError, open_dataset, scan
from data.importers.registry import LAYOUTS
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving, write_frames

from .trees import lay_out, write_table, write_tar

CLASSES = ("Run", "Walk")
N_FRAMES = 4
TRAIN, TEST = (2, 3), (1,)
"""Groups on each side."""


def clips() -> Iterator[tuple[str, int, str]]:
    """Yield (class, group, name) of every clip of the set."""
    for class_name in CLASSES:
        for group in (*TRAIN, *TEST):
            yield class_name, group, f"v_{class_name}_g{group:02d}_c01"


def pixels(name: str, count: int = N_FRAMES) -> np.ndarray:
    return moving(count, 16, 24, seed=sum(name.encode()))


def video(path: Path, name: str, count: int = N_FRAMES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, pixels(name, count))


def videos(folder: Path, suffix: str = ".avi") -> None:
    for class_name, _, name in clips():
        video(folder / class_name / f"{name}{suffix}", name)


def ucf101(root: Path) -> None:
    videos(root / "videos")
    lines = {side: [f"{c}/{n}.avi" for c, g, n in clips() if g in side] for side in (TRAIN, TEST)}
    lists = {"classInd.txt": "1 Run\n2 Walk\n", "testlist01.txt": "\n".join(lines[TEST])}
    lists["trainlist01.txt"] = "".join(f"{line} {CLASSES.index(line.split('/')[0]) + 1}\n" for line in lines[TRAIN])
    lay_out(root / "ucfTrainTestlist", lists)


def hmdb51(root: Path) -> None:
    for class_name in CLASSES:
        lines = []
        for group in (*TRAIN, *TEST):
            name = f"film{class_name}{group}_{class_name}_f_nm_np1_fr_goo_{group}"
            video(root / class_name / f"{name}.avi", name)
            lines.append(f"{name}.avi {1 if group in TRAIN else 2} \n")
        lay_out(root / "splits", {f"{class_name}_test_split1.txt": "".join(lines)})


def training_validation(root: Path) -> None:
    for class_name, group, name in clips():
        side = "training" if group in TRAIN else "validation"
        video(root / side / class_name / f"{name}.avi", name)


def annot_json(root: Path) -> None:
    content: dict[str, dict[str, object]] = {"labels": {"1": "Run", "2": "Walk"}, "training": {}, "validation": {}}
    for class_name, group, name in clips():
        side = "training" if group in TRAIN else "validation"
        content[side][name] = {"set": side, "label": CLASSES.index(class_name) + 1, "nframes": 99}
        write_frames(root / "images" / name, pixels(name), name="frame%06d.jpg")
        for axis in "uv":
            write_frames(root / "flows" / axis / name, pixels(name)[:-1], name="frame%06d.jpg")
    lay_out(root, {"annotations/annot01.json": json.dumps(content)})


def kinetics(root: Path) -> None:
    lines = {TRAIN: "", TEST: ""}
    for class_name, group, name in clips():
        side = TRAIN if group in TRAIN else TEST
        lines[side] += f"{class_name},{class_name[0]}bcdefghij{group},1,11,{'train' if side == TRAIN else 'val'},0\n"
        stem = f"{class_name[0]}bcdefghij{group}_000001_000011"
        video(root / class_name / f"{stem}.mp4", name)
    head = "label,youtube_id,time_start,time_end,split,is_cc\n"
    lay_out(root, {"train.csv": head + lines[TRAIN] + "Run,gone,0,10,train,0\n", "val.csv": head + lines[TEST]})


def activitynet(root: Path) -> None:
    database = {}
    for class_name, group, name in clips():
        subset = "training" if group in TRAIN else "validation"
        segment = {"label": class_name, "segment": [2 / 25, 6 / 25]}
        database[name] = {"subset": subset, "annotations": [segment], "duration": 0.4}
        video(root / "videos" / f"{name}.avi", name, 10)
    lay_out(root, {"activity_net.json": json.dumps({"database": database})})


def something(root: Path) -> None:
    entries: dict[str, list[dict[str, str]]] = {"train": [], "validation": []}
    for number, (class_name, group, name) in enumerate(clips()):
        side = "train" if group in TRAIN else "validation"
        entries[side].append({"id": str(number), "template": f"[{class_name}]"})
        video(root / "20bn-something-something-v2" / f"{number}.avi", name)
    lists = {f"something-something-v2-{side}.json": json.dumps(listed) for side, listed in entries.items()}
    lay_out(root, lists | {"something-something-v2-labels.json": json.dumps({"Run": "0", "Walk": "1"})})


def frame_lists(root: Path) -> None:
    lines = {TRAIN: "", TEST: ""}
    for class_name, group, name in clips():
        write_frames(root / class_name / name, pixels(name, 7), name="%05d.jpg")
        lines[TRAIN if group in TRAIN else TEST] += f"{class_name}/{name};3;6;{CLASSES.index(class_name)}\n"
    lay_out(root, {"train.txt": lines[TRAIN], "val.txt": lines[TEST]})


def path_lists(root: Path) -> None:
    videos(root / "videos")
    lines = {TRAIN: "", TEST: ""}
    for class_name, group, name in clips():
        lines[TRAIN if group in TRAIN else TEST] += f"{class_name}/{name}.avi {CLASSES.index(class_name)}\n"
    lists = {"x_train_split_1_videos.txt": lines[TRAIN], "x_val_split_1_videos.txt": lines[TEST]}
    lay_out(root / "annotations", lists)


def lmdb_of_frames(root: Path) -> None:
    described = []
    with lmdb.open(str(root / "set.lmdb"), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for class_name, group, name in clips():
            id_, label = f"{class_name}/{name}", CLASSES.index(class_name)
            official = [[1, "train" if group in TRAIN else "test"]]
            described.append({"id": id_, "label": label, "group": f"{class_name}/{group}", "official": official})
            for number, frame in enumerate(pixels(name), start=1):
                transaction.put(f"{id_}/{number:05d}".encode(), cv2.imencode(".jpg", frame)[1].tobytes())
        meta = {"format": "video-hpo frames", "version": 1, "class_names": CLASSES, "clips": described}
        transaction.put(b"__meta__", json.dumps(meta).encode())


def webdataset(root: Path) -> None:
    shards: dict[tuple[int, ...], list[tuple[str, bytes]]] = {TRAIN: [], TEST: []}
    for class_name, group, name in clips():
        video(root.parent / "a.mp4", name)
        side = shards[TRAIN if group in TRAIN else TEST]
        side += [(f"{name}.mp4", (root.parent / "a.mp4").read_bytes()), (f"{name}.cls", class_name.encode())]
    write_tar(root / "train-000000.tar", shards[TRAIN])
    write_tar(root / "test-000000.tar", shards[TEST])


def videofolder(root: Path) -> None:
    lines = {TRAIN: ["file_name,label"], TEST: ["file_name,label"]}
    for class_name, group, name in clips():
        side = TRAIN if group in TRAIN else TEST
        video(root / ("train" if side == TRAIN else "test") / f"{name}.mp4", name)
        lines[side].append(f"{name}.mp4,{class_name}")
    lay_out(root, {"train/metadata.csv": "\n".join(lines[TRAIN]), "test/metadata.csv": "\n".join(lines[TEST])})


def parquet_tables(root: Path) -> None:
    rows: dict[tuple[int, ...], list[dict[str, object]]] = {TRAIN: [], TEST: []}
    for class_name, group, name in clips():
        video(root.parent / "a.mp4", name)
        cell = {"bytes": (root.parent / "a.mp4").read_bytes(), "path": f"{name}.mp4"}
        rows[TRAIN if group in TRAIN else TEST].append({"video": cell, "label": CLASSES.index(class_name)})
    write_table(root / "data" / "train-00000-of-00001.parquet", rows[TRAIN], CLASSES)
    write_table(root / "data" / "test-00000-of-00001.parquet", rows[TEST], CLASSES)


def class_folders(root: Path) -> None:
    for class_name, group, name in clips():
        if group in TRAIN:
            video(root / class_name / f"{name}.avi", name)


def image_folders(root: Path) -> None:
    for class_name, group, name in clips():
        side = "train" if group in TRAIN else "val"
        write_frames(root / side / class_name / "deeper", pixels(name)[:1], name=f"{name}_%d.jpg")


TREES: dict[str, Callable[[Path], None]] = {
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "training_validation": training_validation,
    "annot_json": annot_json,
    "kinetics": kinetics,
    "activitynet": activitynet,
    "something": something,
    "frame_lists": frame_lists,
    "path_lists": path_lists,
    "lmdb": lmdb_of_frames,
    "webdataset": webdataset,
    "videofolder": videofolder,
    "parquet": parquet_tables,
    "class_folders": class_folders,
    "image_folders": image_folders,
}
SMALL = ClipSpec(frames=2, stride=1, size=16)


def test_every_layout_is_here() -> None:
    assert set(TREES) == set(LAYOUTS)


@pytest.mark.parametrize("name", TREES)
def test_a_set_is_recognised_decoded_split_and_prepared(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    TREES[name](root)
    asked = name if name == "image_folders" else "auto"  # the same files could be frames
    opened = open_dataset(DatasetSpec(name=asked, root=root, short_side=16), cache_dir=tmp_path / "cache")
    assert opened.index.name == name
    assert opened.class_names == CLASSES
    assert opened.problems == ()
    assert {clip.n_frames for clip in opened.index.clips} == {1 if name == "image_folders" else N_FRAMES}
    train = opened.train_loader(clip=SMALL, batch_size=2, seed=0)
    validation = opened.validation_loader(clip=SMALL, batch_size=2)
    assert (train.num_clips, validation.num_clips) == (2, 2)
    labels = {id_: int(label) for batch in validation for id_, label in zip(batch.ids, batch.labels, strict=True)}
    assert {clip.id: clip.label for clip in opened.index.clips if clip.id in labels} == labels
    assert scan(root, name=name).hash == opened.version
    if name == "class_folders":
        with pytest.raises(SplitError, match="names no test clips"):
            opened.unseal_test(reason="a test")
        for ask in (lambda: opened.test_list, opened.earlier_openings, opened.require_test_clips):
            with pytest.raises(SplitError, match="names no test clips"):
                ask()  # an empty list has no identity: it would be that of all data sets without one
    else:
        assert len(opened.unseal_test(reason="a test")) == 2


def test_images_are_clips_of_one_frame(tmp_path: Path) -> None:
    for number, (class_name, _, name) in enumerate(clips()):
        (tmp_path / "set" / class_name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "set" / class_name / f"{number}.png"), pixels(name)[0])
    spec = DatasetSpec(name="auto", root=tmp_path / "set", short_side=16, held_out="1of3")
    opened = open_dataset(spec, cache_dir=tmp_path / "cache")
    assert {clip.n_frames for clip in opened.index.clips} == {1}
    assert opened.validation_loader(clip=ClipSpec(frames=1, size=16), batch_size=2).num_clips == 2
    assert any("may share their source" in note for note in opened.notes)


def test_an_lmdb_store_reads_back_as_a_data_set(tmp_path: Path) -> None:
    root, cache_dir = tmp_path / "set", tmp_path / "cache"
    ucf101(root)
    opened = open_dataset(DatasetSpec(name="ucf101", root=root, short_side=16, store="lmdb"), cache_dir=cache_dir)
    (database,) = cache_dir.glob("*/data.mdb")
    again = scan(database.parent)
    assert again.name == "lmdb"
    assert {(c.id, c.label, c.group, c.official, c.n_frames) for c in again.usable} == {
        (c.id, c.label, c.group, c.official, c.n_frames) for c in opened.index.clips
    }


def test_a_pattern_of_groups_holds_whole_sources_out(tmp_path: Path) -> None:
    for class_name in CLASSES:
        for source in (1, 2):
            for part in (1, 2):
                name = f"{class_name}{source}{part}"
                video(tmp_path / "set" / class_name / f"film{source}-{part}.avi", name)
    spec = DatasetSpec(name="auto", root=tmp_path / "set", short_side=16, group_pattern=r"film\d+")
    opened = open_dataset(spec, cache_dir=tmp_path / "cache")
    held_out = {id_ for batch in opened.validation_loader(clip=SMALL, batch_size=4) for id_ in batch.ids}
    assert held_out == {f"{class_name}/film2-{part}" for class_name in CLASSES for part in (1, 2)}
