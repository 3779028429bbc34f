"""The memory of a GPU, with PyTorch's functions played: what is free, what was taken, and what may be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from workers.training import memory as memory_module
from workers.training.memory import GpuMemory, MainMemory, memory_of, peak_memory_bytes
from workers.training.reproducibility import Runtime, prepare

GPU = torch.device("cuda")
TOTAL = 1000


class FakeCuda:
    """A GPU of 1000 bytes: another process holds 300, the context of this one 50, PyTorch 200, at most 400 so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fractions: list[float] = []
        self.calls: list[str] = []
        played = {
            "get_device_properties": lambda device: SimpleNamespace(name="T4", total_memory=TOTAL),
            "mem_get_info": lambda device: (TOTAL - 300 - 50 - 200, TOTAL),
            "memory_reserved": lambda device: 200,
            "max_memory_reserved": lambda device: 400,
            "set_per_process_memory_fraction": self._limit,
            "empty_cache": lambda: self.calls.append("empty"),
            "reset_peak_memory_stats": lambda device: self.calls.append("peak"),
            "reset_accumulated_memory_stats": lambda device: self.calls.append("counts"),
            "is_initialized": lambda: True,
        }
        for name, function in played.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def _limit(self, fraction: float, device: int | None) -> None:
        assert device is None or isinstance(device, int), "PyTorch refuses a device without a number"
        self.fractions.append(fraction)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def test_free_is_what_the_driver_says_and_what_is_held_within_the_share(cuda: FakeCuda) -> None:
    assert GpuMemory(GPU).free_bytes() == 450 + 200
    assert GpuMemory(GPU, share=0.5).free_bytes() == 500
    assert GpuMemory(GPU).card == "T4, 1000 bytes"
    assert GpuMemory(GPU, share=0.5).card == "T4, 500 bytes"


def test_the_peak_has_the_context_but_on_a_shared_gpu_nothing_of_others(cuda: FakeCuda) -> None:
    assert GpuMemory(GPU).peak_bytes() == 400 + 350
    assert GpuMemory(GPU, share=0.5).peak_bytes() == 400
    assert peak_memory_bytes(Runtime(device=GPU, threads=1)) == 750


def test_no_more_was_taken_than_there_is_although_others_came_later(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 900)
    assert GpuMemory(GPU).peak_bytes() == TOTAL


def test_before_a_gpu_is_used_nothing_was_taken_and_nothing_is_touched(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(memory_module, "memory_of", lambda runtime: pytest.fail("this would make a context"))
    assert peak_memory_bytes(Runtime(device=GPU, threads=1)) == 0


def test_a_plan_is_tried_within_less_than_what_is_free(cuda: FakeCuda) -> None:
    with GpuMemory(GPU, share=0.6).margin():
        assert cuda.fractions == [pytest.approx(0.97 * 0.6)]
    assert cuda.fractions[1:] == [0.6]


def test_clearing_gives_memory_back_before_a_new_peak_is_measured(cuda: FakeCuda) -> None:
    GpuMemory(GPU).clear()
    assert cuda.calls == ["empty", "peak", "counts"]


def test_a_process_keeps_to_the_share_of_its_worker(cuda: FakeCuda, runtime: Runtime) -> None:
    prepare(Runtime(device=GPU, threads=1, memory_share=0.25))
    assert cuda.fractions == [0.25]


def test_a_cpu_is_not_measured(runtime: Runtime) -> None:
    found = memory_of(runtime)
    assert isinstance(found, MainMemory)
    assert (found.is_measured, found.free_bytes(), found.card) == (False, None, "")
    assert peak_memory_bytes(runtime) > 10_000_000
