"""Measure the figures of docs/benchmarks.md: `make bench`. Prints Markdown tables; asserts nothing.

Times are those of one process with one thread unless a row says otherwise. CPU seconds are given where the machine may
be shared, because they depend little on other load.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from data import AugmentSpec, ClipSpec, DatasetSpec, open_dataset
from data.synthetic.dataset import make_demo_dataset
from hpo.optimizer import create_optimizer
from hpo.protocol import ClaimRequest, WorkerInfo
from hpo.spec import StudySpec, parse_spec
from hpo.store import Database, EmbeddedPostgres, lifecycle, migrate, studies
from hpo.trial import Suggestion, TrialRecord, TrialState
from models import create_model

Row = tuple[str, ...]


def main() -> None:
    """Run the requested benchmarks."""
    benches: dict[str, Callable[[], None]] = {
        "optimizer": bench_optimizer,
        "loader": bench_loader,
        "training": bench_training_step,
        "claims": bench_claims,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *benches], help="which to run; all without a name")
    names = parser.parse_args().names or list(benches)
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for name in names:
        benches[name]()


def bench_optimizer() -> None:
    """Print the CPU seconds of one ask after one tell, with six parameters and Ax."""
    rows = []
    for trials in (10, 25, 50):
        asked = []
        for _ in range(3):
            optimizer = create_optimizer(_spec(trials + 10))
            optimizer.replay([_finished(number) for number in range(trials)])
            started = time.process_time()
            optimizer.ask(1)
            asked.append(time.process_time() - started)
        rows.append((str(trials), f"{statistics.median(asked):.2f}"))
    _print("Ax: one suggestion after a result, six parameters", ("finished trials", "CPU s"), rows)


def bench_loader() -> None:
    """Print the clips per CPU second from the cache to the augmented float batch, and the cost of preparing."""
    with _folder() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        root = make_demo_dataset(folder / "videos", frames=40, groups=10, clips_per_group=5)
        rows = [("make 300 clips of 40 frames, 80x64", f"{time.perf_counter() - wall:.1f} s", "")]
        wall, cpu = time.perf_counter(), time.process_time()
        dataset = open_dataset(DatasetSpec(name="ucf101", root=root, short_side=64), cache_dir=folder / "cache")
        rows.append(("scan and cache them", f"{time.perf_counter() - wall:.1f} s", ""))
        loader = dataset.train_loader(
            clip=ClipSpec(frames=16, stride=2, size=48), augment=AugmentSpec(), batch_size=16, seed=0
        )
        list(loader.batches(0))
        wall, cpu = time.perf_counter(), time.process_time()
        clips = sum(len(batch.ids) for epoch in range(1, 4) for batch in loader.batches(epoch))
        per_wall, per_cpu = clips / (time.perf_counter() - wall), clips / (time.process_time() - cpu)
        rows.append(("load 16 x 48 x 48 training clips", f"{per_wall:.0f} clips/s", f"{per_cpu:.0f} clips/CPU-s"))
    _print("Data", ("step", "wall", "CPU"), rows)


def bench_training_step() -> None:
    """Print the seconds per clip of a training step at the demo's size, and at a real size if there is a GPU."""
    cases = [("slowfast_r18", 8, 32, {"width": 16, "beta_inv": 4}), ("r2plus1d_18", 8, 32, {"width": 8})]
    rows = [
        _step(name, frames=16, size=size, batch=batch, hparams=hparams, device="cpu")
        for name, batch, size, hparams in cases
    ]
    if torch.cuda.is_available():
        for name in ("slowfast_r50_4x16", "r2plus1d_18"):
            for bf16 in (False, True):
                rows.append(_step(name, frames=32, size=112, batch=16, hparams={}, device="cuda", bf16=bf16))
    _print("Training step", ("model", "clip", "batch", "device", "clips/s", "ms/clip (CPU time)"), rows)


def _step(
    name: str, *, frames: int, size: int, batch: int, hparams: Mapping[str, Any], device: str, bf16: bool = False
) -> Row:
    model = create_model(name, num_classes=101, **hparams).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    clips = torch.randn(batch, 3, frames, size, size, device=device)
    labels = torch.randint(101, (batch,), device=device)
    walls, cpus = [], []
    for _ in range(12):
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    precision = "bf16" if bf16 else "fp32"
    cpu_ms = f"{1000 * statistics.median(cpus[2:]) / batch:.1f}" if device == "cpu" else ""
    speed = f"{batch / statistics.median(walls[2:]):.0f}"
    return name, f"{frames} x {size} x {size}", str(batch), f"{device} {precision}", speed, cpu_ms


def bench_claims() -> None:
    """Print the latency of a claim in the store, with 16 simultaneous claims and 500 suggested trials."""
    with _folder() as folder, EmbeddedPostgres(folder / "postgres") as url:
        migrate(url)
        database = Database(url)
        with database.transaction() as connection:
            study = studies.create(connection, _spec(500), actor="benchmark")
            generation = studies.acquire_generator(connection, study.id, "benchmark", 600)
            assert generation is not None  # noqa: S101 - nobody else is there
            waiting = [Suggestion(params=_params(number), generator="sobol") for number in range(500)]
            lifecycle.suggest(connection, study.id, waiting, owner="benchmark", generation=generation)
        seconds: list[float] = []
        threads = [threading.Thread(target=_claim, args=(database, 500 // 16, seconds)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        database.close()
    quantiles = statistics.quantiles(seconds, n=20)
    rows = [(str(len(seconds)), f"{1000 * statistics.median(seconds):.1f}", f"{1000 * quantiles[18]:.1f}")]
    _print("Claims, 16 at once", ("claims", "median ms", "p95 ms"), rows)


def _claim(database: Database, times: int, seconds: list[float]) -> None:
    name = f"worker-{threading.get_ident()}"
    info = WorkerInfo(name=name, host="benchmark", pid=1, device="cpu")
    for _ in range(times):
        started = time.perf_counter()
        with database.transaction() as connection:
            lifecycle.claim(connection, ClaimRequest(worker=info, lease_id=uuid4()), lease_seconds=600)
        seconds.append(time.perf_counter() - started)


def _spec(trials: int) -> StudySpec:
    return parse_spec(
        {
            "name": "benchmark",
            "objectives": [{"metric": "val_top1"}],
            "task": {"dataset": {"root": "/videos"}},
            "space": {
                "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
                "weight_decay": {"type": "float", "low": 1e-6, "high": 5e-3, "log": True},
                "dropout": {"type": "float", "low": 0.0, "high": 0.9},
                "momentum": {"type": "float", "low": 0.8, "high": 0.98},
                "batch_size": {"type": "int", "low": 8, "high": 64, "log": True},
                "model": {"type": "categorical", "choices": ["slowfast_r18", "r2plus1d_18"]},
            },
            "budget": {"trials": trials},
        }
    )


def _params(number: int) -> dict[str, bool | int | float | str]:
    share = (number * 0.6180339887) % 1.0
    return {
        "lr": 1e-4 * 3000**share,
        "weight_decay": 1e-6 * 5000 ** ((share * 7) % 1),
        "dropout": 0.9 * ((share * 13) % 1),
        "momentum": 0.8 + 0.18 * ((share * 29) % 1),
        "batch_size": 8 + int(56 * ((share * 37) % 1)),
        "model": ("slowfast_r18", "r2plus1d_18")[number % 2],
    }


def _finished(number: int) -> TrialRecord:
    params = _params(number)
    score = math.exp(-((math.log10(float(params["lr"])) + 2) ** 2)) * (1 - abs(float(params["dropout"]) - 0.4))
    return TrialRecord(
        id=number, number=number, state=TrialState.COMPLETED, params=params, metrics={"val_top1": score}, epochs_done=40
    )


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hpo-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _print(title: str, head: Row, rows: Sequence[Row]) -> None:
    print(f"\n### {title}\n\n| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
