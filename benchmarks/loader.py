"""Measure the loader against the alternatives: `python -m benchmarks.loader [--json FILE]`. Asserts nothing.

Everything runs in one process with one thread, in turns, so that other load on the machine affects all alike. Figures
are clips per CPU second of one core, the median of the turns. A clip is 32 frames, every second one, from a random
start, and a random crop of 112 x 112 pixels at short side 128: bytes on the host, ready to be copied to the device.
Without a folder of videos (`--videos`, best in UCF101's size and codec) a set of that size is generated.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from data.index.file import read_index, write_index

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import cv2
import torch

from benchmarks.loader_peers import (
    BATCH,
    CLIP,
    COPY,
    CUT,
    SHORT_SIDE,
    Peer,
    Request,
    copies,
    decoders,
    jpegs,
    loaders,
)
from data import AugmentSpec, Dataset, DatasetSpec, Index, open_dataset
from data.clips.crops import training_box
from data.clips.loader import ClipLoader
from data.clips.plan import TrainingRows
from data.clips.sampling import training_indices
from data.index.records import ClipRecord, Measurement, make_index
from data.seeding import Draws
from data.specs import StoreKind
from data.synthetic.dataset import make_demo_dataset
from models import create_model

Results = dict[str, Any]


def main() -> None:
    """Run the requested parts and print their figures."""
    parts = {"speed": bench_speed, "step": bench_step, "memory": bench_memory, "index": bench_index}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="what to run; all without a name")
    parser.add_argument("--videos", type=Path, default=None, help="folder of videos, copied until there are --copies")
    parser.add_argument("--copies", type=int, default=40, help="videos of the set")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--clips", type=int, default=400, help="clips of a turn of the fastest; slower ones get fewer")
    parser.add_argument("--memory-clips", type=int, default=100_000)
    parser.add_argument("--model", default="slowfast_r18", help="model of the training step")
    parser.add_argument("--json", type=Path, default=None, help="file to write the figures to as well")
    options = parser.parse_args()
    _lend_ffmpeg()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    folder = Path(tempfile.mkdtemp(prefix="loader-"))
    try:
        root = _videos(folder / "videos", options)
        results = {name: parts[name](root, folder, options) for name in options.parts or parts}
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(os.environ.get("LOADER_FFMPEG", ""), ignore_errors=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def _lend_ffmpeg() -> None:
    """Restart this program with the FFmpeg libraries of PyAV, if torchcodec does not find any on the system."""
    libraries = Path(av.__file__).parents[1] / "av.libs"
    found = {path: re.match(r"(lib(?:av|sw)[a-z]+)-\w+(\.so\.\d+)", path.name) for path in libraries.glob("lib*")}
    names = {path: match[1] + match[2] for path, match in found.items() if match is not None}
    if "LOADER_FFMPEG" in os.environ or not names or importlib.util.find_spec("torchcodec") is None:
        return
    folder = Path(tempfile.mkdtemp(prefix="ffmpeg-"))
    for path, name in names.items():
        (folder / name).symlink_to(path)
    search = os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), str(folder), str(libraries)]))
    environment = {**os.environ, "LD_LIBRARY_PATH": search, "LOADER_FFMPEG": str(folder)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606  # ourselves, once more


def _videos(root: Path, options: argparse.Namespace) -> Path:
    """Return the folder of the set, laid out as class folders: copies of the given videos, or generated ones."""
    if options.videos is None:
        return make_demo_dataset(
            root,
            classes=("SlideLeft", "SlideRight"),
            groups=max(4, options.copies // 10),
            clips_per_group=5,
            frames=(150, 200),
            size=(320, 240),
        )
    given = sorted(path for path in options.videos.iterdir() if path.suffix in (".avi", ".mp4"))
    if not given:
        sys.exit(f"{options.videos} holds no .avi or .mp4 files")
    for number in range(options.copies):
        source = given[number % len(given)]
        target = root / ("A", "B")[number % 2] / f"{source.stem}_{number:03d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return root


def _open(root: Path, folder: Path, store: str) -> Dataset:
    spec = DatasetSpec(name="auto", root=root, validation="random", short_side=SHORT_SIDE, store=store)  # type: ignore[arg-type]  # a StoreKind
    if (root / "annotations").is_dir():
        spec = DatasetSpec(name="ucf101", root=root, short_side=SHORT_SIDE, store=store)  # type: ignore[arg-type]  # a StoreKind
    return open_dataset(spec, cache_dir=folder / "cache")


def bench_speed(root: Path, folder: Path, options: argparse.Namespace) -> Results:
    """Return the clips per CPU second of every store and every peer."""
    kinds = [kind for kind in get_args(StoreKind) if kind != "auto"]
    stores = {kind: _open(root, folder, kind) for kind in kinds}
    raw = stores["raw"]
    peers = [*copies(raw, options.clips), *loaders(stores, options.clips)]
    peers += [*decoders(root, options.clips // 20), *jpegs(root, raw, folder / "frames", options.clips // 10)]
    requests = _requests(raw, options.clips * options.turns)
    speeds = {
        name: statistics.median(values) for name, values in _in_turns(peers, requests, turns=options.turns).items()
    }
    copied = speeds[COPY]
    bases = [speeds[name] for name in ("PyAV", "JPEG 320x240, PIL + torchvision") if name in speeds]
    rows = [
        (name, f"{speed:.0f}", f"{speed / copied:.2f}", *(f"{speed / base:.1f}" for base in bases))
        for name, speed in sorted(speeds.items(), key=lambda item: -item[1])
    ]
    header = ("source", "clips / CPU s", "x copy", "x PyAV", "x JPEG + PIL")
    _print("32 frames, short side 128, crop 112, to bytes on the host", header, rows)
    return dict(speeds)


def _requests(dataset: Dataset, count: int) -> list[Request]:
    made = []
    records = dataset.index.usable
    for number in range(count):
        draws = Draws("benchmark", number)
        record = records[draws.integer(len(records))]
        n_frames, height, width = dataset.stores["rgb"].shape(record.id)
        box = training_box(height, width, CUT, draws)
        made.append(Request(record=record, indices=training_indices(n_frames, CLIP, draws), box=box))
    return made


def _in_turns(peers: Sequence[Peer], requests: Sequence[Request], *, turns: int) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for peer in peers:
        peer.deliver(requests[: max(1, peer.clips // 4)])  # pages, codecs and caches are warm for all
    for turn in range(turns):
        for peer in peers:
            asked = [requests[(turn * peer.clips + n) % len(requests)] for n in range(peer.clips)]
            started = time.process_time()
            peer.deliver(asked)
            speeds[peer.name].append(len(asked) / (time.process_time() - started))
    return speeds


def bench_step(root: Path, folder: Path, options: argparse.Namespace) -> Results:
    """Return the wall time of a training step with a batch from the loader, and with a batch already in memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = _open(root, folder, "raw")
    rows = TrainingRows(clip=CLIP, augment=AugmentSpec(), seed=0)
    loader = ClipLoader(
        dataset.stores, dataset.index.usable, rows, batch_size=BATCH, device=device, drop_last=True, prefetch=2
    )
    model = create_model(options.model, num_classes=101).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(clips: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = torch.nn.functional.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def timed(batches: Iterator[Any]) -> float:
        done = 0
        started = time.perf_counter()
        for batch in batches:
            step(batch.clips, batch.labels)
            done += 1
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / done

    resident = next(loader.batches(0))
    timed(iter([resident] * 2))
    turns = options.turns if device == "cuda" else min(3, options.turns)  # steps of seconds vary little
    pairs = [(timed(iter([resident] * len(loader))), timed(loader.batches(turn))) for turn in range(turns)]
    alone, loaded = (statistics.median(pair[n] for pair in pairs) for n in (0, 1))
    share = statistics.median(pair[0] / pair[1] for pair in pairs)
    row = (options.model, device, f"{1000 * alone:.1f}", f"{1000 * loaded:.1f}", f"{share:.3f}")
    _print("Training step, 8 clips", ("model", "device", "resident, ms", "with the loader, ms", "share"), [row])
    return {"resident_seconds": alone, "loader_seconds": loaded, "share": share}


def bench_memory(root: Path, folder: Path, options: argparse.Namespace) -> Results:
    """Return the anonymous memory of this process while the loader delivers clip after clip."""
    dataset = _open(root, folder, "raw")
    rows = TrainingRows(clip=CLIP, augment=AugmentSpec(), seed=0)
    loader = ClipLoader(dataset.stores, dataset.index.usable, rows, batch_size=BATCH, prefetch=2, readers=2)
    sizes: list[tuple[int, float]] = []
    done = epoch = 0
    while done < options.memory_clips:
        for batch in loader.host_batches(epoch):
            done += len(batch.rows)
        epoch += 1
        if done * 10 // options.memory_clips > len(sizes):
            sizes.append((done, _anonymous_mib()))
    _print("Memory", ("clips", "MiB"), [(str(clips), f"{size:.1f}") for clips, size in sizes])
    return {"mib_by_clips": sizes}


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def bench_index(root: Path, folder: Path, options: argparse.Namespace) -> Results:
    """Return the seconds that opening an index with the number of clips of UCF101 takes."""
    path = folder / "index.json"
    write_index(_ucf101(), path)
    seconds = []
    for _ in range(options.turns):
        started = time.perf_counter()
        read_index(path)
        seconds.append(time.perf_counter() - started)
    best = statistics.median(seconds)
    _print("Opening an index of 13,320 clips", ("seconds",), [(f"{best:.3f}",)])
    return {"seconds": best}


def _ucf101() -> Index:
    names = [f"Class{number:03d}" for number in range(101)]
    clips = []
    for number in range(13_320):
        label, group = number % 101, number // 101 % 25 + 1
        stem = f"v_{names[label]}_g{group:02d}_c{number // 2525 + 1:02d}"
        clips.append(
            ClipRecord(
                id=f"{names[label]}/{stem}",
                path=f"{names[label]}/{stem}.avi",
                label=label,
                class_name=names[label],
                group=f"{names[label]}/g{group:02d}",
                official=tuple((split, "test" if (group - 1) // 7 + 1 == split else "train") for split in (1, 2, 3)),
                measured=Measurement(
                    status="ok", n_frames=180, width=320, height=240, fps=25.0, codec="mpeg4", sha1=f"{number:040x}"
                ),
            )
        )
    return make_index(name="ucf101", class_names=names, clips=clips)


def _print(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("| " + " | ".join("---" for _ in header) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
