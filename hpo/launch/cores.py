"""Sharing the cores of a machine out among its workers: each near the memory, and the GPU, that it works with.

A machine with several processors has memory at each of them (NUMA), and reaches that of another one more slowly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NODES: Final = Path("sys/devices/system/node")
_GPUS: Final = Path("proc/driver/nvidia/gpus")
_PCI: Final = Path("sys/bus/pci/devices")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreShare:
    """What one worker has of the cores."""

    threads: int
    """At least 1, also where there are more workers than cores."""
    cores: frozenset[int] | None = None
    """The cores that it may run on, shared with the other workers of the same node; None for any."""


def core_shares(
    devices: Sequence[Sequence[int]], *, allowed: frozenset[int] | None = None, root: Path = Path("/")
) -> list[CoreShare]:
    """Return the share of each worker of this machine.

    Where all memory is alike, each has as many threads as any other. Else a worker is kept to the cores that are near
    its GPU, and those without one take the nodes in turn. One with several GPUs has the cores of all, and so many
    threads for each as the least of them would have alone.

    Args:
        devices: the GPUs of each worker; none for the CPU.
        allowed: cores that may be used at all; those of this process where nothing is said.
        root: where `/proc` and `/sys` are.
    """
    single = _shares([gpu for gpus in devices for gpu in gpus or (None,)], allowed, root)
    shares = iter(single)
    return [_joined([next(shares) for _ in gpus or (None,)]) for gpus in devices]


def _joined(shares: Sequence[CoreShare]) -> CoreShare:
    cores: frozenset[int] | None = frozenset()
    for share in shares:
        cores = None if cores is None or share.cores is None else cores | share.cores
    return CoreShare(threads=min(share.threads for share in shares), cores=cores)


def _shares(gpus: Sequence[int | None], allowed: frozenset[int] | None, root: Path) -> list[CoreShare]:
    """Return the share of each device; None is the CPU."""
    allowed = frozenset(os.sched_getaffinity(0)) if allowed is None else allowed
    nodes = _nodes(root, allowed)
    if len(nodes) < 2:
        return [CoreShare(threads=max(1, len(allowed) // len(gpus)))] * len(gpus)
    near = [
        nodes[place % len(nodes)] if gpu is None else (_near_gpu(root, gpu) & allowed) or allowed
        for place, gpu in enumerate(gpus)
    ]
    return [
        CoreShare(
            threads=max(1, len(cores) // (len(near) if cores == allowed else near.count(cores))),
            cores=None if cores == allowed else cores,
        )
        for cores in near
    ]


def _nodes(root: Path, allowed: frozenset[int]) -> list[frozenset[int]]:
    """Return the cores of each node of memory that has any which may be used."""
    files = sorted((root / _NODES).glob("node[0-9]*/cpulist"), key=lambda file: int(file.parent.name[len("node") :]))
    return [cores for file in files if (cores := _listed(file) & allowed)]


def _near_gpu(root: Path, gpu: int) -> frozenset[int]:
    """Return the cores near a GPU, by the number that `hpo-worker --gpu` takes; none where that is not known."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    with suppress(OSError, IndexError, StopIteration):
        folders = sorted((root / _GPUS).iterdir())  # named by their places on the bus, by which GPUs are numbered
        name = str(gpu) if visible is None else visible.split(",")[gpu].strip()
        if name.isdigit():
            found = folders[int(name)]
        else:
            found = next(folder for folder in folders if name in (folder / "information").read_text())
        return _listed(root / _PCI / found.name / "local_cpulist")
    return frozenset()


def _listed(file: Path) -> frozenset[int]:
    """Return the numbers of a list such as `0-3,8`."""
    found: set[int] = set()
    for part in file.read_text().strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
