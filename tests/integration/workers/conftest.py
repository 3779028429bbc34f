"""A bench per test, and the run that all interrupted ones must equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.store import Database
from tests.integration.api.service import Service, serving
from tests.unit.workers.tiny import BASE, make_videos, tiny_task
from workers.device.detection import cpu_device
from workers.retrain import TrainingResult, train_export

from .bench import EPOCHS, GOOD, Bench, bench_in, running


@pytest.fixture(scope="package")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a generated data set."""
    return make_videos(tmp_path_factory.mktemp("tiny") / "videos")


@pytest.fixture(scope="package")
def reference(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """The configuration of GOOD, trained without any interruption and without a study."""
    folder = tmp_path_factory.mktemp("reference")
    return train_export(
        {**BASE, "seed": 11, **GOOD},
        tiny_task(videos, epochs=EPOCHS),
        device=cpu_device(threads=1),
        folder=folder / "checkpoints",
        cache_dir=folder / "cache",
    )


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    """A running API that looks for expired leases all the time."""
    with serving(database, upkeep_seconds=0.2) as running_service:
        yield running_service


@pytest.fixture
def bench(service: Service, tmp_path: Path, videos: Path) -> Iterator[Bench]:
    """Everything that a test acts on."""
    with running(bench_in(tmp_path, service, videos)) as made:
        yield made
