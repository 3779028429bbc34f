"""What the worker's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data import Dataset, open_dataset
from workers.training.reproducibility import Runtime

from .tiny import make_videos, tiny_task


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a generated data set."""
    return make_videos(tmp_path_factory.mktemp("tiny") / "videos")


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is prepared."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def dataset(videos: Path, cache_dir: Path) -> Dataset:
    """The data set, prepared."""
    return open_dataset(tiny_task(videos).dataset, cache_dir=cache_dir)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """The CPU with one thread; what a run sets in this process is put back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield Runtime(device=torch.device("cpu"), threads=1)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
