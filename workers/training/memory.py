"""The memory of a device, as a plan of a run asks for it: what is free, and what a process has taken at most.

This is all that depends on the kind of device, so that tests can play one with any limit.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Protocol

import torch

from .reproducibility import Runtime, limit_gpu_memory

MARGIN: Final = 0.03
"""Share of the free memory that stays free while a plan is tried: later batches of the same shape may take a little
more, since memory that was used becomes fragmented."""


class DeviceMemory(Protocol):
    """The memory that one process may take on its device."""

    card: str
    """Name and size of the device; plans of another one are not used again."""
    is_measured: bool
    """Whether a plan is tried before training. In main memory it is not: the kernel gives out more than there is."""

    def free_bytes(self) -> int | None:
        """Return what this process may take, with what it holds already; None where that is not known."""

    def peak_bytes(self) -> int:
        """Return the most that this process has taken since :meth:`clear`."""

    def clear(self) -> None:
        """Give back what is not in use, and measure a new peak from now on."""

    def margin(self) -> AbstractContextManager[None]:
        """Return a context in which this process may take less than there is, by `MARGIN`."""


class MainMemory:
    """The memory of a CPU."""

    card = ""
    is_measured = False

    def free_bytes(self) -> int | None:
        """Return None: what the kernel counts as available, it gives to other processes too."""
        return None

    def peak_bytes(self) -> int:
        """Return the most memory that was resident in this process."""
        # Not getrusage: its figure is inherited from the parent over fork and exec.
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        raise OSError("/proc/self/status has no VmHWM line")

    def clear(self) -> None:
        """Drop cycles of objects, which may hold tensors."""
        gc.collect()

    def margin(self) -> AbstractContextManager[None]:
        """Return a context that changes nothing."""
        return nullcontext()


class GpuMemory:
    """The memory of a GPU, of which this process may take a share."""

    is_measured = True

    def __init__(self, device: torch.device, *, share: float = 1.0) -> None:
        """Look at `device`; `share` is the part of its memory that this process may take."""
        properties = torch.cuda.get_device_properties(device)
        self.card = f"{properties.name}, {round(share * properties.total_memory)} bytes"
        self._device = device
        self._share = share

    def free_bytes(self) -> int:
        """Return what the driver calls free and what PyTorch holds, within the share of this process."""
        free, total = torch.cuda.mem_get_info(self._device)
        return min(free + torch.cuda.memory_reserved(self._device), int(self._share * total))

    def peak_bytes(self) -> int:
        """Return the most that PyTorch held, and what is taken otherwise: the CUDA context, with its kernels.

        On a shared GPU other processes count as well, so that what is taken otherwise is left out.
        """
        reserved = torch.cuda.max_memory_reserved(self._device)
        if self._share < 1:
            return reserved
        free, total = torch.cuda.mem_get_info(self._device)
        # What others take now may not have been taken at the peak: together they never had more than there is.
        return min(total, reserved + total - free - torch.cuda.memory_reserved(self._device))

    def clear(self) -> None:
        """Give back what PyTorch keeps for later, and measure a new peak from now on."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        torch.cuda.reset_accumulated_memory_stats(self._device)  # whether memory was short since

    @contextmanager
    def margin(self) -> Iterator[None]:
        """Have PyTorch take less than there is."""
        _, total = torch.cuda.mem_get_info(self._device)
        limit_gpu_memory(self._device, (1 - MARGIN) * self.free_bytes() / total)
        try:
            yield
        finally:
            limit_gpu_memory(self._device, self._share)


def memory_of(runtime: Runtime) -> DeviceMemory:
    """Return the memory of the device that a process computes on."""
    on_gpu = runtime.device.type == "cuda"
    return GpuMemory(runtime.device, share=runtime.memory_share) if on_gpu else MainMemory()


def peak_memory_bytes(runtime: Runtime) -> int:
    """Return the most memory that this process has taken on its device; 0 before it has used a GPU."""
    if runtime.device.type == "cuda" and not torch.cuda.is_initialized():
        return 0
    return memory_of(runtime).peak_bytes()
