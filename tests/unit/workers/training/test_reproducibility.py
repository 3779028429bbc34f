"""Random states, and the description of the process that a trial keeps."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path

import numpy as np
import torch

from workers.training.memory import MainMemory
from workers.training.reproducibility import (
    Runtime,
    describe,
    random_state,
    restore_random_state,
    seed_everything,
)

CPU = torch.device("cpu")


def _draw() -> tuple[float, float, float, float, float]:
    own = random.random(), random.gauss(0, 1)  # noqa: S311 - not a secret
    return *own, np.random.rand(), np.random.randn(), float(torch.randn(()))


def test_every_generator_continues_from_its_state() -> None:
    seed_everything(3)
    _draw()  # leaves half of a pair of normal deviates in Python's and NumPy's generators
    file = io.BytesIO()
    torch.save(random_state(CPU), file)
    expected = [_draw() for _ in range(3)]
    seed_everything(4)
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True), CPU)
    assert [_draw() for _ in range(3)] == expected


def test_the_seed_reaches_every_generator() -> None:
    seed_everything(7)
    first = _draw()
    seed_everything(7)
    assert _draw() == first
    seed_everything(8)
    assert not set(_draw()) & set(first)


def test_the_description_has_what_a_repetition_needs_and_is_json() -> None:
    found = describe(Runtime(device=CPU, threads=3), precision="fp32")
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == 3
    assert found["device"] == "cpu"
    assert found["deterministic"] is True
    assert found["torch"] == torch.__version__


def test_the_peak_of_resident_memory_rises_with_use() -> None:
    before = MainMemory().peak_bytes()
    blocks = []
    # What others of this process free meanwhile does not count: the kernel says when enough is in use.
    while _resident_bytes() < before + 40_000_000:
        blocks.append(np.ones(20_000_000, dtype=np.uint8))
    assert MainMemory().peak_bytes() >= before + 40_000_000


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
