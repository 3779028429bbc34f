"""A tiny generated data set that the tests of this folder share; treat it as read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import Dataset, DatasetSpec, make_demo_dataset, open_dataset

TINY_CLASSES = ("SlideLeft", "SlideRight", "Grow", "Shrink")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes, three groups, two clips each: 24 videos of 20-28 frames, 64 x 48."""
    root = tmp_path_factory.mktemp("tiny") / "set"
    return make_demo_dataset(root, classes=TINY_CLASSES, groups=3, clips_per_group=2, frames=(20, 28), size=(64, 48))


@pytest.fixture(scope="session")
def tiny_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny-cache")


@pytest.fixture(scope="session")
def tiny(tiny_root: Path, tiny_cache_dir: Path) -> Dataset:
    """The tiny set, opened at short side 32."""
    spec = DatasetSpec(name="ucf101", root=tiny_root, split=1, short_side=32)
    return open_dataset(spec, cache_dir=tiny_cache_dir)
