"""What `hpo doctor` finds about GPUs, from what the process that looks at them answers."""

from __future__ import annotations

import pytest

from hpo.cli.doctor import Finding, gpus
from hpo.errors import SetupError
from workers.device import detection
from workers.device.detection import Gpu


def _found(monkeypatch: pytest.MonkeyPatch, *listed: Gpu, problem: str | None = None, hardware: bool) -> list[Finding]:
    monkeypatch.setattr(detection, "list_gpus", lambda: (list(listed), problem))
    monkeypatch.setattr(detection, "has_nvidia_gpu", lambda: hardware)
    return list(gpus())


def test_gpus_have_the_numbers_that_workers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [
        Gpu(index=index, name=name, memory_bytes=2**34, problem=None) for index, name in enumerate(("T4", "A100"))
    ]
    found = _found(monkeypatch, *listed, hardware=True)
    assert [finding.sentence for finding in found] == [
        "0: T4, 16 GiB (hpo-worker --gpu 0)",
        "1: A100, 16 GiB (hpo-worker --gpu 1)",
    ]
    assert all(finding.ok for finding in found)


def test_a_gpu_without_kernels_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Gpu(index=0, name="V100", memory_bytes=2**34, problem="PyTorch has no kernels for the V100")
    (finding,) = _found(monkeypatch, old, hardware=True)
    assert (finding.ok, finding.sentence) == (False, "0: V100, 16 GiB (PyTorch has no kernels for the V100)")


def test_a_driver_that_is_too_old_is_a_finding_and_no_reason_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "the NVIDIA driver is too old for PyTorch: update the driver"
    (finding,) = _found(monkeypatch, problem=problem, hardware=True)
    assert (finding.ok, finding.sentence) == (False, problem)


def test_a_machine_without_a_gpu_is_ready_to_train_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = _found(monkeypatch, problem="PyTorch cannot use it", hardware=False)
    assert (finding.ok, finding.sentence) == (True, "none; workers run with --cpu")


def test_a_driver_that_does_not_answer_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise SetupError("the GPU did not answer within 300 s; see nvidia-smi")

    monkeypatch.setattr(detection, "list_gpus", fail)
    (finding,) = gpus()
    assert (finding.ok, finding.sentence) == (False, "the GPU did not answer within 300 s; see nvidia-smi")
