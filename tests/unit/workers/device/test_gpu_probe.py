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
    assert 1e-4 < gpu_probe.convolution_error(CPU, torch.float16) < gpu_probe.FP16_TOLERANCE


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


class Cuda:
    """`torch.cuda` of a machine with these GPUs, or of one whose driver says `refusal`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusal: Exception | None = None
        self.gpus = [SimpleNamespace(name="H200", total_memory=99, major=9, minor=0, uuid="5c3d-8a2f")]
        self.built_for = ["sm_75", "sm_80", "sm_90", "sm_120"]
        monkeypatch.setattr(torch.cuda, "init", self._init)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(self.gpus))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: self.gpus[_index(device)])
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: self.built_for)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: True)
        monkeypatch.setattr(gpu_probe, "convolution_error", lambda device, dtype: 0.0)

    def _init(self) -> None:
        if self.refusal is not None:
            raise self.refusal


def _index(device: torch.device | int) -> int:
    return device if isinstance(device, int) else device.index or 0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("Found no NVIDIA driver on your system. Please check\nmore"),
        AssertionError("Torch not compiled with CUDA enabled"),
    ],
)
def test_without_a_gpu_it_says_so(
    cuda: Cuda, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    cuda.refusal = refusal
    problem = f"PyTorch cannot use it ({str(refusal).splitlines()[0]})"
    assert printed(capsys, monkeypatch) == {"problem": problem, "name_others": True}
    assert printed(capsys, monkeypatch, "list") == {"problem": problem, "gpus": []}


@pytest.mark.parametrize("at", ["init", "convolution"])
def test_a_gpu_without_memory_for_a_check_is_full_and_not_wrong(
    cuda: Cuda, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB\nmore")

    def fail(*_: Any) -> float:
        raise full

    if at == "init":
        cuda.refusal = full
    else:
        monkeypatch.setattr(gpu_probe, "convolution_error", fail)
    assert printed(capsys, monkeypatch) == {
        "problem": "PyTorch cannot use it (CUDA out of memory. Tried to allocate 2 MiB): end what holds its memory, "
        "see nvidia-smi",
        "name_others": True,
        "is_full": True,
    }


def test_another_error_of_the_check_is_raised(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(gpu_probe, "convolution_error", fail)
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(RuntimeError, match="illegal memory access"):
        gpu_probe.main()


def test_a_driver_that_is_too_old_is_named_with_what_it_supports(
    cuda: Cuda, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda.refusal = RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = printed(capsys, monkeypatch)
    assert found["problem"].startswith("the NVIDIA driver, which supports CUDA up to 12.2, is too old for PyTorch")
    assert found["problem"].endswith("with CUDA 13.0: update the driver, or install a PyTorch for an older CUDA")
    assert not found["name_others"]


def test_it_describes_every_gpu(
    cuda: Cuda, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda.gpus.append(SimpleNamespace(name="V100", total_memory=32, major=7, minor=0, uuid="aa-bb"))
    found = printed(capsys, monkeypatch, "list")
    assert found["problem"] is None
    assert [(gpu["name"], gpu["memory_bytes"], gpu["uuid"]) for gpu in found["gpus"]] == [
        ("H200", 99, "GPU-5c3d-8a2f"),
        ("V100", 32, "GPU-aa-bb"),
    ]
    assert [gpu["problem"] is None for gpu in found["gpus"]] == [True, False]


def test_a_wheel_without_kernels_for_the_gpu_is_named(
    cuda: Cuda, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda.gpus[0] = SimpleNamespace(name="V100", total_memory=32, major=7, minor=0, uuid="aa-bb")
    problem = printed(capsys, monkeypatch)["problem"]
    assert "has no kernels for the V100 (sm_70), only for sm_75, sm_80, sm_90, sm_120: install" in problem


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),  # a later minor version of the same major one
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),  # binary code does not run on another major version
        ((12, 0), ["sm_90", "compute_90"], True),  # PTX is compiled for whatever comes later
        ((8, 9), ["compute_90"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["compute_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((12, 0), ["sm_100f"], False),
        ((12, 1), ["sm_120"], True),
        ((9, 0), ["gfx942"], False),
        ((9, 0), [], False),
    ],
)
def test_binary_code_runs_within_its_major_version_and_ptx_on_what_is_later(
    capability: tuple[int, int], built_for: list[str], runs: bool
) -> None:
    assert gpu_probe.has_kernels(capability, built_for) is runs


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("has_bf16", [True, False])
@pytest.mark.parametrize("fp32_error", [1e-4, 0.1, float("inf")])
@pytest.mark.parametrize("half_errors", [(4e-3, 0.1), (0.1, 4e-4)])
def test_it_reports_which_convolutions_are_right(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    has_bf16: bool,
    fp32_error: float,
    half_errors: tuple[float, float],
) -> None:
    bf16_error, fp16_error = half_errors
    errors = {torch.float32: fp32_error, torch.bfloat16: bf16_error, torch.float16: fp16_error}
    monkeypatch.setattr(gpu_probe, "convolution_error", lambda device, dtype: errors[dtype])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has_bf16)
    assert printed(capsys, monkeypatch) == {
        "problem": None,
        "name_others": True,
        "name": "H200",
        "memory_bytes": 99,
        "uuid": "GPU-5c3d-8a2f",
        "has_bf16": has_bf16,
        "fp32_right": fp32_error < 0.01,
        "bf16_right": has_bf16 and bf16_error < 0.05,
        "fp16_right": fp16_error < 0.01,
    }


@pytest.mark.parametrize(("capability", "right"), [((6, 1), False), ((7, 0), True), ((7, 5), True)])
def test_fp16_is_left_to_gpus_that_are_fast_at_it(
    cuda: Cuda,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    right: bool,
) -> None:
    cuda.gpus[0].major, cuda.gpus[0].minor = capability
    cuda.built_for = ["sm_61", "sm_70"]
    assert printed(capsys, monkeypatch)["fp16_right"] is right
