"""Makes a process sick: imported by every Python that has this folder in PYTHONPATH, as a test of faults sets it.

SICK_TRAINING=EXPRESSION   every epoch of a training raises this exception
SICK_PROBE=JSON            what the probe of a GPU answers from its second call on; at first all is well
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

WELL = {
    "problem": None,
    "name_others": True,
    "name": "NVIDIA H100",
    "memory_bytes": 80 * 2**30,
    "uuid": "GPU-5c3d8a2f-0000-1111-2222-333344445555",
    "has_bf16": True,
    "fp32_right": True,
    "bf16_right": True,
}


def make_training_sick(module: Any) -> None:
    """Let every epoch fail before its first batch."""

    def fail(*_: Any, **__: Any) -> None:
        raise eval(os.environ["SICK_TRAINING"])  # noqa: S307 - the test wrote it

    module.Trainer._train_epoch = fail


def make_probe_sick(module: Any) -> None:
    """Let a GPU be well when the worker starts, and sick afterwards."""
    answers = [WELL]

    def probe(*_: Any) -> str:
        return json.dumps(answers.pop() if answers else json.loads(os.environ["SICK_PROBE"]))

    module._run_probe = probe


CHANGES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "workers.training.trainer": ("SICK_TRAINING", make_training_sick),
    "workers.device.detection": ("SICK_PROBE", make_probe_sick),
}


class Changing(importlib.abc.Loader):
    """Loads a module and changes it."""

    def __init__(self, loader: importlib.abc.Loader, change: Callable[[Any], None]) -> None:
        self._loader = loader
        self._change = change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are to be changed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in CHANGES or CHANGES[name][0] not in os.environ:
            return None
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(name, path, target)
            if found is not None and found.loader is not None:
                found.loader = Changing(found.loader, CHANGES[name][1])
                return found
        return None


sys.meta_path.insert(0, Finder())
