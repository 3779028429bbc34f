"""The device that a worker trains on: found, and checked, by a short-lived process.

The worker itself never imports torch: it stays small, and no CUDA context of its own takes memory from the trials.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpo.errors import SetupError

_PROBE_CODE = "from workers.device.gpu_probe import main; main()"
_SECRET_VARIABLES = frozenset({"HPO_TOKEN", "DATABASE_URL"})
"""Kept from a training process, which talks to its worker only."""
_PROBE_TIMEOUT_SECONDS = 300.0
"""The first import of PyTorch from a network file system takes minutes."""
_CONTAINER_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Bytes, or the word `max`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the training processes of this worker run on."""

    kind: Literal["cpu", "cuda"]
    label: str
    """What people call it: `cpu`, `cuda:1`."""
    threads: int
    visible: str = ""
    """CUDA_VISIBLE_DEVICES of the training processes; empty, so that they see no GPU, on a CPU."""
    gpu_name: str | None = None
    memory_bytes: int | None = None
    bf16: bool = False
    """Whether the GPU has bf16 and its bf16 convolutions were found to be right."""
    note: str | None = None
    """What a person should know about it."""
    deterministic: bool = False

    def environment(self) -> dict[str, str]:
        """Return the environment of a training process."""
        extra = {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the numbers that nvidia-smi shows
            "CUDA_VISIBLE_DEVICES": self.visible,
            "OMP_NUM_THREADS": str(self.threads),
            "PYTHONUNBUFFERED": "1",
        }
        if self.deterministic:
            extra["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        kept = {name: value for name, value in os.environ.items() if name not in _SECRET_VARIABLES}
        return {**kept, **extra}


def cpu_device(*, threads: int | None = None) -> Device:
    """Return this machine's CPU; `threads` defaults to OMP_NUM_THREADS, or to the number of cores."""
    return Device(kind="cpu", label="cpu", threads=threads or _default_threads(), memory_bytes=_memory_bytes())


def gpu_device(index: int, *, threads: int | None = None, deterministic: bool = False) -> Device:
    """Return GPU `index` (of those in CUDA_VISIBLE_DEVICES, if it is set), its convolutions checked.

    Raises:
        SetupError: there is no such GPU, and the message names those there are; or it computes wrongly.
    """
    visible = _visible(index)
    device = Device(
        kind="cuda",
        label=f"cuda:{index}",
        threads=threads or _default_threads(),
        visible=visible,
        deterministic=deterministic,
    )
    found = _probe(device)
    if found["problem"] is not None:
        raise SetupError(f"there is no GPU {index}: {found['problem']}; {_named_gpus()}")
    if not found["fp32_right"]:
        raise SetupError(f"GPU {index} ({found['name']}) computes convolutions wrongly in fp32; do not train on it")
    note = None
    if found["has_bf16"] and not found["bf16_right"]:
        note = "bf16 convolutions are wrong with this driver and cuDNN; training in fp32"
    return Device(
        kind="cuda",
        label=device.label,
        threads=device.threads,
        visible=visible,
        gpu_name=found["name"],
        memory_bytes=found["memory_bytes"],
        bf16=found["has_bf16"] and found["bf16_right"],
        note=note,
        deterministic=deterministic,
    )


def _visible(index: int) -> str:
    """Return the CUDA_VISIBLE_DEVICES that shows this GPU alone: Slurm or a container may already show only some."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return str(index)
    names = [name for name in allowed.split(",") if name.strip()]
    if index >= len(names):
        raise SetupError(
            f"there is no GPU {index}: CUDA_VISIBLE_DEVICES={allowed} leaves {len(names)}; name one of them by its "
            "position, from 0, or start with --cpu"
        )
    return names[index]


def _probe(device: Device) -> dict[str, Any]:
    answer = _run_probe(device.environment())
    result: dict[str, Any] = json.loads(answer)
    return result


def _named_gpus() -> str:
    """Return a phrase that names the GPUs there are."""
    found = json.loads(_run_probe({**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "list"))
    if not found["names"]:
        return "PyTorch finds none on this machine; start with --cpu"
    return "there are: " + ", ".join(f"{number} ({name})" for number, name in enumerate(found["names"]))


def _run_probe(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-P", "-c", _PROBE_CODE, *arguments]
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


def _memory_bytes() -> int:
    """Return the main memory of the machine, or of the container if that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CONTAINER_MEMORY_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
