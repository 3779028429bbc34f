"""Makes a process sick: imported by every Python that has this folder in PYTHONPATH, as a test of faults sets it.

SICK_TRAINING=EXPRESSION   every epoch of a training raises this exception
SICK_FROM=N                with SICK_TRAINING: only from the Nth training of this data directory on (from 1)
SICK_UPDATES=JSON          a list; the place of a trial's fault in it is its weight decay in thousandths. Each update of
                           more than `fits` clips raises `error`; `short` says whether memory of the GPU was short
SICK_PROBE=JSON            what the probe of a GPU answers from its second call on; at first all is well
PLAYED_GPU=JSON            what the probe answers, beside what a GPU that is well does
PLAYED_CARDS=JSON          the GPUs that PyTorch sees, as the bus numbers them; CUDA itself puts the largest first
PLAYED_HOST=NAME           what the machine is called
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
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
    "fp16_right": True,
}


def made_error(expression: str) -> Exception:
    """Return the exception that a test has written as an expression."""
    import torch  # expressions may name its exceptions

    error = eval(expression, {"torch": torch})  # noqa: S307 - the test wrote it
    assert isinstance(error, Exception)
    return error


def number_of_training() -> int:
    """Return which training of this data directory this is, from 1."""
    for number in range(1, 1000):
        try:
            (Path(os.environ["HPO_HOME"]) / f"training-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return number
    raise AssertionError("a test has so many trainings")


def make_training_sick(module: Any) -> None:
    """Let every epoch fail before its first batch."""
    well = module.Trainer._train_epoch

    def fail(*arguments: Any) -> bool:
        if "SICK_FROM" in os.environ and number_of_training() < int(os.environ["SICK_FROM"]):
            return bool(well(*arguments))
        raise made_error(os.environ["SICK_TRAINING"])

    module.Trainer._train_epoch = fail


def fault_of_trial(config: Any) -> dict[str, Any]:
    """Return the entry of SICK_UPDATES for a configuration."""
    entry: dict[str, Any] = json.loads(os.environ["SICK_UPDATES"])[round(1000 * config.weight_decay)]
    return entry


def make_updates_sick(module: Any) -> None:
    """Let updates fail where a convolution would: in the computation of gradients."""
    well = module.TrainingStep.differentiate

    def fail(step: Any, batch: Any, *, micro_batch: int | None = None) -> Any:
        entry = fault_of_trial(step.config)
        SHORT.update(is_short=entry.get("short", False))
        if (micro_batch or len(batch.labels)) > entry.get("fits", 0):
            raise made_error(entry["error"])
        return well(step, batch, micro_batch=micro_batch)

    module.TrainingStep.differentiate = fail


SHORT = {"is_short": False}


def make_memory_short(module: Any) -> None:
    """Let the memory of a GPU, which this machine may not have, be used up or not as the fault of the trial says."""
    module.memory_was_short = lambda _: SHORT["is_short"]


def make_probe_sick(module: Any) -> None:
    """Let a GPU be well when the worker starts, and sick afterwards."""
    well = {**WELL, **json.loads(os.environ.get("PLAYED_GPU", "{}"))}
    answers = [well] if "SICK_PROBE" in os.environ else []

    def probe(*_: Any) -> str:
        return json.dumps(answers.pop() if answers else json.loads(os.environ.get("SICK_PROBE", json.dumps(well))))

    module._run_probe = probe


def play_cards(module: Any) -> None:
    """Let PyTorch see GPUs in the order, and as many of them, as the environment says."""
    cards = json.loads(os.environ["PLAYED_CARDS"])
    if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        cards.sort(key=lambda card: -card["memory_bytes"])
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        cards = [cards[int(place)] for place in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
    facts = [{**WELL, **card} for card in cards]
    module._driver_problem = lambda: None
    module._facts = lambda device: facts[device.index]
    module._checked = lambda: facts[0]
    module.torch.cuda.device_count = lambda: len(facts)


CHANGES: dict[str, tuple[frozenset[str], Callable[[Any], None]]] = {
    "workers.training.trainer": (frozenset({"SICK_TRAINING"}), make_training_sick),
    "workers.training.step": (frozenset({"SICK_UPDATES"}), make_updates_sick),
    "workers.training.faults": (frozenset({"SICK_UPDATES"}), make_memory_short),
    "workers.device.detection": (frozenset({"SICK_PROBE", "PLAYED_GPU"}), make_probe_sick),
    "workers.device.gpu_probe": (frozenset({"PLAYED_CARDS"}), play_cards),
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
        if name not in CHANGES or not CHANGES[name][0] & os.environ.keys():
            return None
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(name, path, target)
            if found is not None and found.loader is not None:
                found.loader = Changing(found.loader, CHANGES[name][1])
                return found
        return None


sys.meta_path.insert(0, Finder())
if "PLAYED_HOST" in os.environ:
    socket.gethostname = lambda: os.environ["PLAYED_HOST"]
