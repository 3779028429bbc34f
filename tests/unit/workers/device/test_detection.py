"""Devices: which one the children see, and what is said when there is none."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hpo.errors import SetupError
from workers.device import gpu_probe
from workers.device.detection import cpu_device, gpu_device

CPU = torch.device("cpu")


def test_the_children_of_a_cpu_worker_see_no_gpu_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    environment = cpu_device(threads=3).environment()
    assert "HPO_TOKEN" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["OMP_NUM_THREADS"] == "3"


def test_threads_follow_the_environment_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cpu_device().threads == 5
    assert cpu_device(threads=2).threads == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpu_device().threads == len(os.sched_getaffinity(0))


def test_memory_of_a_cpu_worker_is_that_of_the_machine_at_most() -> None:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < (cpu_device(threads=1).memory_bytes or 0) <= physical


def test_a_gpu_beyond_the_visible_ones_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with pytest.raises(SetupError, match=r"there is no GPU 2: CUDA_VISIBLE_DEVICES=4,6 leaves 2;"):
        gpu_device(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_any_gpu_the_way_out_is_named() -> None:
    with pytest.raises(SetupError, match=r"there is no GPU 0: .* start with --cpu"):
        gpu_device(0)


def test_right_convolutions_pass_the_check_on_a_cpu() -> None:
    assert gpu_probe.convolution_error(CPU, torch.float64) == 0
    assert gpu_probe.convolution_error(CPU, torch.float32) < 1e-5
    assert 1e-4 < gpu_probe.convolution_error(CPU, torch.bfloat16) < gpu_probe.BF16_TOLERANCE


@pytest.mark.parametrize("wrong", [lambda y: y.roll(1, 2), lambda y: y * 1.1, lambda y: y * float("nan")])
def test_wrong_convolutions_fail_the_check(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    conv3d = F.conv3d

    def broken(clip: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        output = conv3d(clip, weight, **options)
        changed: torch.Tensor = wrong(output) if clip.dtype == torch.bfloat16 else output
        return changed

    monkeypatch.setattr(F, "conv3d", broken)
    assert gpu_probe.convolution_error(CPU, torch.bfloat16) > gpu_probe.BF16_TOLERANCE
    assert gpu_probe.convolution_error(CPU, torch.float32) < gpu_probe.FP32_TOLERANCE
