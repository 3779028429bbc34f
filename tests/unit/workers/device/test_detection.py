"""Devices: which one the training processes see, what is found out about it, and the message when there is none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.errors import SetupError
from workers.device import detection
from workers.device.detection import Device, check_device, cpu_device, gpu_device, has_nvidia_gpu, list_gpus
from workers.device.main_memory import total_bytes


def test_the_children_of_a_cpu_worker_see_no_gpu_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    environment = cpu_device(threads=3).environment()
    assert "HPO_TOKEN" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["OMP_NUM_THREADS"] == "3"


def test_a_training_process_gets_no_secret_and_numbers_gpus_as_nvidia_smi_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    plain = Device(kind="cuda", label="cuda:1", threads=2, visible="7")
    environment = plain.environment()
    assert not {"HPO_TOKEN", "DATABASE_URL", "CUBLAS_WORKSPACE_CONFIG"} & set(environment)
    assert environment["LANG"] == "C.UTF-8"
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("7", "PCI_BUS_ID")
    # What PyTorch asks for with deterministic algorithms on.
    assert replace(plain, deterministic=True).environment()["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("given", [{}, {"PYTORCH_ALLOC_CONF": "a:1"}, {"PYTORCH_CUDA_ALLOC_CONF": "b:2"}])
def test_memory_grows_in_segments_unless_a_person_has_set_how(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = Device(kind="cuda", label="cuda:0", threads=1, visible="0").environment()
    found = {name: value for name, value in environment.items() if name.endswith("ALLOC_CONF")}
    assert found == (given or {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
    of_cpu = cpu_device(threads=1).environment()
    assert {name: value for name, value in of_cpu.items() if name.endswith("ALLOC_CONF")} == given


def test_threads_follow_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cpu_device().threads == 5
    assert cpu_device(threads=2).threads == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpu_device().threads == len(os.sched_getaffinity(0))
    for nonsense in ("0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert cpu_device().threads == len(os.sched_getaffinity(0))


def test_memory_of_a_cpu_is_that_of_the_machine() -> None:
    assert cpu_device(threads=1).memory_bytes == total_bytes()


def test_a_gpu_beyond_the_visible_ones_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with pytest.raises(SetupError, match=r"there is no GPU 2: CUDA_VISIBLE_DEVICES=4,6 leaves 2; .*--cpu trains"):
        gpu_device(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_any_gpu_the_way_out_is_named() -> None:
    with pytest.raises(SetupError, match=r"GPU 0 cannot be used: .* --cpu trains without one"):
        gpu_device(0)


class Probe:
    """Answers in place of the process that looks at a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.report: dict[str, Any] = {
            "problem": None,
            "name_others": True,
            "name": "NVIDIA H200",
            "uuid": "GPU-5c3d8a2f-0000-1111-2222-333344445555",
            "memory_bytes": 150_000_000_000,
            "has_bf16": True,
            "fp32_right": True,
            "bf16_right": True,
            "fp16_right": True,
        }
        self.names: list[str] = []
        self.problem_of_all: str | None = None
        self.environments: list[dict[str, str]] = []
        monkeypatch.setattr(subprocess, "run", self._run)

    def _run(self, command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.environments.append(env)
        gpus = [{"name": name, "memory_bytes": 2**34, "problem": None} for name in self.names]
        answer = {"problem": self.problem_of_all, "gpus": gpus} if command[-1] == "list" else self.report
        return subprocess.CompletedProcess(command, 0, stdout=f"a warning\n{json.dumps(answer)}\n")


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Probe(monkeypatch)


def test_a_gpu_is_described_by_what_the_probe_found(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_device(1, threads=6, deterministic=True) == Device(
        kind="cuda",
        label="cuda:1",
        threads=6,
        visible="1",
        uuid="GPU-5c3d8a2f-0000-1111-2222-333344445555",
        gpu_name="NVIDIA H200",
        memory_bytes=150_000_000_000,
        bf16=True,
        fp16=True,
        deterministic=True,
    )
    assert probe.environments[0]["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert gpu_device(1, threads=6).visible == "GPU-b"
    assert probe.environments[1]["CUDA_VISIBLE_DEVICES"] == "GPU-b"


@pytest.mark.parametrize(
    ("has", "right", "used", "noted"),
    [(True, True, True, False), (True, False, False, True), (False, False, False, False)],
)
def test_bf16_is_used_where_it_was_found_right(probe: Probe, has: bool, right: bool, used: bool, noted: bool) -> None:
    probe.report |= {"has_bf16": has, "bf16_right": right}
    device = gpu_device(0)
    assert (device.bf16, device.note is not None) == (used, noted)
    assert device.note is None or "training in fp16" in device.note
    probe.report |= {"fp16_right": False}
    device = gpu_device(0)
    assert not device.fp16
    assert device.note is None or "training in fp32" in device.note


def test_a_gpu_that_computes_wrongly_in_fp32_is_refused(probe: Probe) -> None:
    probe.report |= {"fp32_right": False}
    with pytest.raises(SetupError, match=r"GPU 0 \(NVIDIA H200\) computes convolutions wrongly"):
        gpu_device(0)


def test_gpus_have_names_that_do_not_depend_on_what_a_job_sees(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs on one machine, each of which sees one GPU and calls it 0."""
    names = []
    for visible, uuid in (("0", "GPU-aaaaaaaa-1111"), ("3", "GPU-bbbbbbbb-2222")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        probe.report |= {"uuid": uuid}
        names.append(gpu_device(0).short_id)
    assert names == ["GPU-aaaaaaaa", "GPU-bbbbbbbb"]
    assert cpu_device(threads=1).short_id == "cpu"


def test_a_part_of_a_gpu_is_named_by_its_own_uuid(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-12345678-aaaa,MIG-87654321-bbbb")
    assert [gpu_device(index).short_id for index in (0, 1)] == ["MIG-12345678", "MIG-87654321"]


# ---------------------------------------------------------------- a device that was used


USED = Device(kind="cuda", label="cuda:0", threads=1, visible="2", gpu_name="NVIDIA H200", bf16=True, fp16=True)


def test_a_device_that_computes_as_at_the_start_has_no_problem(probe: Probe) -> None:
    assert check_device(USED) is None
    assert probe.environments[0]["CUDA_VISIBLE_DEVICES"] == "2", "it is the same GPU that is checked"
    assert check_device(cpu_device(threads=1)) is None
    assert len(probe.environments) == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"problem": "PyTorch cannot use it (No CUDA GPUs)"}, "cuda:0 cannot be used any more: PyTorch cannot use it"),
        ({"fp32_right": False}, "cuda:0 (NVIDIA H200) computes convolutions wrongly"),
        ({"bf16_right": False}, "cuda:0 (NVIDIA H200) computes convolutions wrongly"),
        ({"fp16_right": False}, "cuda:0 (NVIDIA H200) computes convolutions wrongly"),
    ],
)
def test_what_is_wrong_with_a_device_is_said(probe: Probe, found: dict[str, Any], said: str) -> None:
    probe.report |= found
    problem = check_device(USED)
    assert problem is not None
    assert problem.startswith(said)


def test_wrong_bf16_is_no_problem_where_it_is_not_used(probe: Probe) -> None:
    probe.report |= {"bf16_right": False, "fp16_right": False}
    assert check_device(replace(USED, bf16=False, fp16=False)) is None


def test_a_gpu_without_memory_for_a_check_is_well_after_a_trial_and_refused_at_the_start(probe: Probe) -> None:
    probe.report |= {"problem": "PyTorch cannot use it (CUDA out of memory)", "is_full": True}
    assert check_device(replace(USED, memory_share=0.5)) is None
    with pytest.raises(SetupError, match="CUDA out of memory"):
        gpu_device(0)


def test_a_device_that_does_not_answer_has_a_problem(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", _raises(subprocess.TimeoutExpired("probe", 300)))
    assert check_device(USED) == "the GPU did not answer within 300 s; see nvidia-smi"


def test_gpus_are_listed_in_the_order_of_the_workers(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    probe.names = ["T4", "A100"]
    gpus, problem = list_gpus()
    assert [(gpu.index, gpu.name, gpu.memory_bytes) for gpu in gpus] == [(0, "T4", 2**34), (1, "A100", 2**34)]
    assert problem is None
    assert probe.environments[0]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_an_nvidia_gpu_is_known_by_its_device_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_NVIDIA_DEVICES", tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not has_nvidia_gpu()
    (tmp_path / "nvidia0").touch()
    assert has_nvidia_gpu()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["A100", "T4"], r"there are: 0 \(A100\), 1 \(T4\)$"),
        ([], "PyTorch finds none on this machine; --cpu trains without one$"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_and_the_others_are_named(probe: Probe, names: list[str], said: str) -> None:
    probe.report = {"problem": "PyTorch cannot use it", "name_others": True}
    probe.names = names
    with pytest.raises(SetupError, match=f"GPU 5 cannot be used: PyTorch cannot use it; {said}"):
        gpu_device(5)


def test_an_old_driver_is_not_a_reason_to_train_on_the_cpu(probe: Probe) -> None:
    probe.report = {"problem": "the NVIDIA driver is too old for it: update the driver", "name_others": False}
    with pytest.raises(SetupError, match=r"^GPU 0 cannot be used: the NVIDIA driver .*: update the driver$"):
        gpu_device(0)


def _raises(error: Exception) -> Callable[..., None]:
    def run(*_: Any, **__: Any) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (subprocess.TimeoutExpired("probe", 300), "did not answer within 300 s; see nvidia-smi"),
        (subprocess.CalledProcessError(1, "probe", stderr="Traceback\nno driver\n"), r"cannot be used \(no driver\)"),
        (subprocess.CalledProcessError(-9, "probe", stderr=""), r"cannot be used \(no message\)"),
    ],
)
def test_a_probe_that_fails_is_one_sentence(
    probe: Probe, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(subprocess, "run", _raises(error))
    with pytest.raises(SetupError, match=said):
        gpu_device(0)
