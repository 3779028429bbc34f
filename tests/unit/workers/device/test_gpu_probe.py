"""The probe of a GPU: convolutions against float64, and the line of JSON that it prints."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from workers.device import gpu_probe

CPU = torch.device("cpu")


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


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Return what the probe prints when it runs with these command-line arguments."""
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    gpu_probe.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert printed(capsys, monkeypatch) == {"problem": "PyTorch cannot use it"}
    assert printed(capsys, monkeypatch, "list") == {"names": []}


def test_it_names_every_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", ["A100", "T4"].__getitem__)
    assert printed(capsys, monkeypatch, "list") == {"names": ["A100", "T4"]}


@pytest.mark.parametrize("has_bf16", [True, False])
@pytest.mark.parametrize("fp32_error", [1e-4, 0.1, float("inf")])
@pytest.mark.parametrize("bf16_error", [4e-3, 0.1])
def test_it_reports_which_convolutions_are_right(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    has_bf16: bool,
    fp32_error: float,
    bf16_error: float,
) -> None:
    errors = {torch.float32: fp32_error, torch.bfloat16: bf16_error}
    monkeypatch.setattr(gpu_probe, "convolution_error", lambda device, dtype: errors[dtype])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has_bf16)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(name="H200", total_memory=99)
    )
    assert printed(capsys, monkeypatch) == {
        "problem": None,
        "name": "H200",
        "memory_bytes": 99,
        "has_bf16": has_bf16,
        "fp32_right": fp32_error < 0.01,
        "bf16_right": has_bf16 and bf16_error < 0.05,
    }
