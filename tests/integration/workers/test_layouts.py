"""One epoch of a real worker on data sets in the layouts that people have, made of one generated set."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data import DatasetSpec, Index, scan
from data.export.frames import extract
from data.export.lists import export
from data.preparation.prepare import prepare
from data.reading.clip_frames import clip_frames
from data.reading.images import encode_jpeg
from tests.unit.data.clip_databases import write
from tests.unit.workers.tiny import BASE

from .bench import GOOD, Bench

RGB = {key: value for key, value in BASE.items() if key not in GOOD}
FLOW = {key: value for key, value in RGB.items() if not key.startswith("model")} | {
    "model": "resnet18",
    "clip.modality": "flow",
    "clip.flow_pairs": 2,
}


def annot_json(index: Index, videos: Path, root: Path) -> dict[str, Any]:
    """Frames and flow as images, and the lists to go with them."""
    export(index, videos, root, "annot_json")
    extract(index, DatasetSpec(root=videos, short_side=32, flow="dis"), root, naming="annot_json")
    return {"name": "annot_json", "flow": "listed"}


def frame_lists(index: Index, videos: Path, root: Path) -> dict[str, Any]:
    """Frames as images, and lists with counted frames."""
    export(index, videos, root, "frame_lists")
    extract(index, DatasetSpec(root=videos, short_side=32), root, naming="ibm")
    return {"name": "frame_lists"}


def path_lists(index: Index, videos: Path, root: Path) -> dict[str, Any]:
    """Videos, and the lists of mmaction2."""
    export(index, videos, root, "path_lists")
    return {"name": "path_lists"}


def lmdb(index: Index, videos: Path, root: Path) -> dict[str, Any]:
    """An LMDB of JPEG images."""
    store = prepare(index, DatasetSpec(root=videos, short_side=32, store="lmdb"), root.with_name("lmdb-cache"))["rgb"]
    shutil.copytree(store.folder, root / "frames.lmdb")
    return {"name": "lmdb"}


def clip_lmdb(index: Index, videos: Path, root: Path) -> dict[str, Any]:
    """IBM's databases, with a clip in each value."""
    root.mkdir()
    for side, name in (("train", "train"), ("test", "val")):
        clips = [clip for clip in index.clips if clip.subset(1) == side]
        images = {clip.id: [encode_jpeg(frame, 90) for frame in clip_frames(clip, videos)] for clip in clips}
        write(root / f"{name}.lmdb", {clip.id: (clip.n_frames, *images[clip.id], clip.label) for clip in clips})
    return {"name": "lmdb"}


def something(index: Index, videos: Path, root: Path) -> dict[str, Any]:
    """Numbered videos, the templates of which the lists name."""
    entries: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    (root / "20bn-something-something-v2").mkdir(parents=True)
    for number, clip in enumerate(index.clips):
        shutil.copy(videos / clip.path, root / "20bn-something-something-v2" / f"{number}.avi")
        entries[clip.subset(1) or "test"].append({"id": str(number), "template": clip.class_name})
    lists = {"train": entries["train"], "validation": entries["test"]}
    lists_and_labels = {**lists, "labels": {name: str(label) for label, name in enumerate(index.class_names)}}
    for name, content in lists_and_labels.items():
        (root / f"something-something-v2-{name}.json").write_text(json.dumps(content))
    return {"name": "something", "validation": "random"}


def kinetics(index: Index, videos: Path, root: Path) -> dict[str, Any]:
    """Segments of videos, in CSV lists."""
    for side in ("train", "test"):
        rows = []
        for number, clip in enumerate(each for each in index.clips if each.subset(1) == side):
            id_ = f"{side[:2]}{number:09d}"
            place = root / side / clip.class_name / f"{id_}_000000_000010.avi"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(videos / clip.path, place)
            rows.append([clip.class_name, id_, 0, 10, side])
        (root / "annotations").mkdir(exist_ok=True)
        with (root / "annotations" / f"{side}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["label", "youtube_id", "time_start", "time_end", "split"], *rows])
    return {"name": "kinetics"}


LAYOUTS = (annot_json, frame_lists, path_lists, lmdb, clip_lmdb, something, kinetics)


@pytest.mark.slow
def test_a_worker_trains_on_every_layout(bench: Bench, tmp_path: Path) -> None:
    index = scan(bench.videos)
    found = {}
    for make in LAYOUTS:
        dataset = {**make(index, bench.videos, tmp_path / make.__name__), "root": str(tmp_path / make.__name__)}
        base = FLOW if dataset.get("flow") == "listed" else RGB
        task = {"dataset": {"short_side": 32, **dataset}, "epochs": 1, "base": {**base, "seed": 11}}
        space = {"lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True}}
        found[make.__name__] = bench.study(make.__name__.replace("_", "-"), [{"lr": 0.02}], task=task, space=space)
    for count in (len(LAYOUTS) // 2, len(LAYOUTS) - len(LAYOUTS) // 2):  # in the time that one worker has
        worker = bench.worker("--max-trials", str(count))
        assert worker.wait() == 0, worker.said
    trials = {name: bench.trial(study) for name, study in found.items()}
    assert {name: trial.state for name, trial in trials.items()} == dict.fromkeys(found, "completed"), worker.said
    seen = {name: trial.environment["dataset"] for name, trial in trials.items()}
    assert {name: each["left_out"] for name, each in seen.items()} == dict.fromkeys(found, 0)
    assert {name: each["train"] + each["validation"] for name, each in seen.items()} == dict.fromkeys(found, 16)
