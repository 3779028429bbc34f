"""Video data sets: index, preparation, splits, decoding, cache and loaders.

    dataset = open_dataset(DatasetSpec(name="ucf101", root="ucf101"), cache_dir="cache")
    train = dataset.train_loader(clip=ClipSpec(), batch_size=8, seed=0)
    for batch in train.batches(epoch=0): ...

Importing this package brings neither torch nor FFmpeg; the first use of what needs them does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    DISK_ERRORS,
    CacheError,
    DatasetError,
    DatasetFormatError,
    DatasetNotFoundError,
    DiskError,
    FlowError,
    GroupLeakError,
    InvalidSpecError,
    SplitError,
    UnknownDatasetError,
    VideoError,
)
from .specs import AugmentSpec, ClipSpec, DatasetSpec

if TYPE_CHECKING:
    from .clips.batch import ClipBatch
    from .clips.loader import ClipLoader
    from .dataset import Dataset, open_dataset
    from .index.records import Index
    from .scanning.report import CheckReport, check
    from .scanning.scan import scan
    from .synthetic.dataset import make_demo_dataset

__all__ = [
    "DISK_ERRORS",
    "AugmentSpec",
    "CacheError",
    "CheckReport",
    "ClipBatch",
    "ClipLoader",
    "ClipSpec",
    "Dataset",
    "DatasetError",
    "DatasetFormatError",
    "DatasetNotFoundError",
    "DatasetSpec",
    "DiskError",
    "FlowError",
    "GroupLeakError",
    "Index",
    "InvalidSpecError",
    "SplitError",
    "UnknownDatasetError",
    "VideoError",
    "check",
    "make_demo_dataset",
    "open_dataset",
    "scan",
]

_HOMES = {
    "CheckReport": "scanning.report",
    "ClipBatch": "clips.batch",
    "ClipLoader": "clips.loader",
    "Dataset": "dataset",
    "Index": "index.records",
    "check": "scanning.report",
    "make_demo_dataset": "synthetic.dataset",
    "open_dataset": "dataset",
    "scan": "scanning.scan",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
