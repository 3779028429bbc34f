"""The device that a worker trains on: found, and checked, by a short-lived process.

The worker itself never imports torch: it stays small, and no CUDA context of its own takes memory from the trials.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from hpo.errors import SetupError
from hpo.installation import child_environment, python_command
from hpo.trial import Fault

from .main_memory import total_bytes

FAULTS_OF_DEVICES: Final = frozenset({Fault.DEVICE, Fault.ARCHITECTURE, Fault.KERNEL, Fault.HANG, Fault.PROCESS})
"""Faults after which the device is checked."""
_PROBE_CODE = "from workers.device.gpu_probe import main; main()"
_PROBE_TIMEOUT_SECONDS = 300.0
"""The first import of PyTorch from a network file system takes minutes."""
_NVIDIA_DEVICES = Path("/dev")
_WRONG = "computes convolutions wrongly; do not train on it"
_SHORT_ID_LENGTH = len("GPU-") + 8
_ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""The name of today first; PyTorch reads the older one too."""
_ALLOCATOR = "expandable_segments:True"
"""Without it, memory of batches of other shapes stays in pieces that no tensor fits into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the training processes of this worker run on."""

    kind: Literal["cpu", "cuda"]
    label: str
    """What people call it: `cpu`, `cuda:1`."""
    threads: int
    visible: str = ""
    """CUDA_VISIBLE_DEVICES of the training processes; empty, so that they see no GPU, on a CPU."""
    ranks: int = 1
    """Processes that a trial may have here at once: each has one of several GPUs, or its share of a CPU's memory."""
    members: tuple[Device, ...] = ()
    """Of several GPUs, each by itself; the first one stands for them where a trial needs one."""
    uuid: str | None = None
    """Of the GPU: `GPU-` or `MIG-` and 32 digits. It stays the same whatever a job sees of the machine."""
    gpu_name: str | None = None
    memory_bytes: int | None = None
    bf16: bool = False
    """Whether the GPU has bf16 and its bf16 convolutions were found to be right."""
    fp16: bool = False
    """Whether the GPU is made for fp16 and its fp16 convolutions were found to be right."""
    note: str | None = None
    """What a person should know about it."""
    deterministic: bool = False
    memory_share: float = 1.0
    """The part of the GPU's memory that this worker may take."""

    @property
    def usable_bytes(self) -> int | None:
        """The memory that trials may take."""
        return None if self.memory_bytes is None else int(self.memory_share * self.memory_bytes)

    @property
    def short_id(self) -> str:
        """Text that no other device of this machine has: the beginning of the GPU's UUID where that is known."""
        return self.label if self.uuid is None else self.uuid[:_SHORT_ID_LENGTH]

    def environment(self) -> dict[str, str]:
        """Return the environment of a training process, which talks to its worker only: no secret is in it."""
        extra = {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the numbers that nvidia-smi shows
            "CUDA_VISIBLE_DEVICES": self.visible,
            "OMP_NUM_THREADS": str(self.threads),
            "PYTHONUNBUFFERED": "1",
        }
        if self.deterministic:
            extra["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        if self.kind == "cuda" and not any(name in os.environ for name in _ALLOCATOR_VARIABLES):
            extra[_ALLOCATOR_VARIABLES[0]] = _ALLOCATOR
        return {**child_environment(), **extra}


def cpu_device(*, threads: int | None = None) -> Device:
    """Return this machine's CPU; `threads` defaults to OMP_NUM_THREADS, or to the number of cores."""
    return Device(kind="cpu", label="cpu", threads=threads or _default_threads(), memory_bytes=total_bytes())


def shared_cpu(device: Device, ranks: int) -> Device:
    """Return a CPU for trials of up to so many processes, which share its cores and memory.

    Raises:
        SetupError: it is a GPU, of which a process has one to itself.
    """
    if device.kind != "cpu":
        raise SetupError("--ranks is for a CPU; on GPUs a trial has a process for each: name them with --gpus")
    assert device.memory_bytes is not None  # noqa: S101 - of a CPU it is known
    return replace(
        device,
        label=f"cpu x {ranks}",
        ranks=ranks,
        threads=max(1, device.threads // ranks),
        memory_bytes=device.memory_bytes // ranks,
    )


def gpu_group(gpus: Sequence[Device]) -> Device:
    """Return several GPUs of this machine as the device of one worker.

    Its memory is that of the smallest, and bf16 or fp16 is used where all compute it correctly.

    Raises:
        SetupError: they are of different kinds: a trial would wait for the slowest in every batch.
    """
    if len(kinds := sorted({str(gpu.gpu_name) for gpu in gpus})) > 1:
        raise SetupError(f"the GPUs of one worker must be of one kind, and these are {' and '.join(kinds)}")
    first = gpus[0]
    return replace(
        first,
        label="cuda:" + ",".join(gpu.label.removeprefix("cuda:") for gpu in gpus),
        visible=",".join(gpu.visible for gpu in gpus),
        ranks=len(gpus),
        members=tuple(gpus),
        memory_bytes=min(gpu.memory_bytes or 0 for gpu in gpus) or None,
        bf16=all(gpu.bf16 for gpu in gpus),
        fp16=all(gpu.fp16 for gpu in gpus),
    )


def gpu_device(
    index: int,
    *,
    threads: int | None = None,
    deterministic: bool = False,
    instead: str = "--cpu trains without one",
) -> Device:
    """Return GPU `index` (of those in CUDA_VISIBLE_DEVICES, if it is set), its convolutions checked.

    Args:
        instead: ends the message where there is no GPU: what to do without one.

    Raises:
        SetupError: there is no such GPU, and the message names those there are; or it computes wrongly.
    """
    visible = _visible(index, instead)
    device = Device(
        kind="cuda",
        label=f"cuda:{index}",
        threads=threads or _default_threads(),
        visible=visible,
        deterministic=deterministic,
    )
    found = _probe(device)
    if found["problem"] is not None:
        others = f"; {_named_gpus(instead)}" if found["name_others"] else ""
        raise SetupError(f"GPU {index} cannot be used: {found['problem']}{others}")
    if not found["fp32_right"]:
        raise SetupError(f"GPU {index} ({found['name']}) {_WRONG}")
    note = None
    if found["has_bf16"] and not found["bf16_right"]:
        instead = "fp16" if found["fp16_right"] else "fp32"
        note = f"bf16 convolutions are wrong with this driver and cuDNN; training in {instead}"
    return Device(
        kind="cuda",
        label=device.label,
        threads=device.threads,
        visible=visible,
        # A part of a GPU has the UUID of its own that CUDA_VISIBLE_DEVICES names.
        uuid=visible if visible.startswith("MIG-") else found["uuid"],
        gpu_name=found["name"],
        memory_bytes=found["memory_bytes"],
        bf16=found["has_bf16"] and found["bf16_right"],
        fp16=found["fp16_right"],
        note=note,
        deterministic=deterministic,
    )


def check_device(device: Device) -> str | None:
    """Return what is wrong with a device that a worker has used, None if nothing is found. Of a CPU nothing is.

    A GPU without memory for a check is taken to be well: that is no fault of the GPU.
    """
    if device.kind == "cpu":
        return None
    if device.members:
        return next((problem for one in device.members if (problem := check_device(one)) is not None), None)
    try:
        found = _probe(device)
    except SetupError as error:
        return str(error)
    if found.get("is_full"):  # other workers that share it, or other programs, have the rest
        return None
    if found["problem"] is not None:
        return f"{device.label} cannot be used any more: {found['problem']}"
    right = found["fp32_right"] and (found["bf16_right"] or not device.bf16)
    right = right and (found["fp16_right"] or not device.fp16)
    return None if right else f"{device.label} ({device.gpu_name}) {_WRONG}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that PyTorch sees on this machine, by the number that `hpo-worker --gpu` takes."""

    index: int
    name: str
    memory_bytes: int
    problem: str | None
    """Why it cannot be used."""


def list_gpus() -> tuple[list[Gpu], str | None]:
    """Return the GPUs of this machine, and why PyTorch can use none if that is so.

    Raises:
        SetupError: PyTorch or the driver fails.
    """
    found = json.loads(_run_probe({**child_environment(), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "list"))
    gpus = [
        Gpu(index=index, name=gpu["name"], memory_bytes=gpu["memory_bytes"], problem=gpu["problem"])
        for index, gpu in enumerate(found["gpus"])
    ]
    return gpus, found["problem"]


def has_nvidia_gpu() -> bool:
    """Return whether the kernel of this machine shows an NVIDIA GPU, whatever PyTorch can make of it."""
    return any(_NVIDIA_DEVICES.glob("nvidia[0-9]*"))


def _visible(index: int, instead: str) -> str:
    """Return the CUDA_VISIBLE_DEVICES that shows this GPU alone: Slurm or a container may already show only some."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return str(index)
    names = [name for name in allowed.split(",") if name.strip()]
    if index >= len(names):
        raise SetupError(
            f"there is no GPU {index}: CUDA_VISIBLE_DEVICES={allowed} leaves {len(names)}; name one of them by its "
            f"position, from 0 ({instead})"
        )
    return names[index]


def _probe(device: Device) -> dict[str, Any]:
    answer = _run_probe(device.environment())
    result: dict[str, Any] = json.loads(answer)
    return result


def _named_gpus(instead: str) -> str:
    """Return a phrase that names the GPUs there are."""
    gpus, _ = list_gpus()
    if not gpus:
        return f"PyTorch finds none on this machine; {instead}"
    return "there are: " + ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus)


def _run_probe(environment: dict[str, str], *arguments: str) -> str:
    command = python_command(_PROBE_CODE, *arguments)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_SECONDS, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"the GPU did not answer within {_PROBE_TIMEOUT_SECONDS:.0f} s; see nvidia-smi") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"the GPU cannot be used ({last})") from error
    return done.stdout.splitlines()[-1]


def _default_threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))
