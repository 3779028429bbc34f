"""How the process that scores computes on a device, which may be one of several that it uses in turn."""

from __future__ import annotations

import os

import torch

from hpo.errors import SetupError

from ..device.detection import Device
from ..device.gpu_probe import gpu_uuid
from ..training.reproducibility import Runtime


def runtime_on(device: Device) -> Runtime:
    """Return how this process computes on the device.

    Raises:
        SetupError: it is a GPU that this process cannot see.
    """
    place = torch.device("cpu") if device.kind == "cpu" else _gpu(device)
    return Runtime(
        device=place,
        threads=device.threads,
        bf16=device.bf16,
        fp16=device.fp16,
        deterministic=device.deterministic,
    )


def _gpu(device: Device) -> torch.device:
    """Return the GPU by its number in this process, which may have used another GPU before."""
    if not torch.cuda.is_initialized():
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if device.visible.startswith("MIG-"):  # CUDA shows a process one part of a GPU at most
            os.environ["CUDA_VISIBLE_DEVICES"] = device.visible
            return torch.device("cuda")
    for index in range(torch.cuda.device_count()):
        if gpu_uuid(index) == device.uuid:
            # Kernels of some libraries run on the current GPU, wherever their tensors are.
            torch.cuda.set_device(index)
            return torch.device("cuda", index)
    raise SetupError(f"this process does not see {device.label}; evaluate in a new process")
