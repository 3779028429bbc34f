"""Which cores a worker has, on machines that are folders here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hpo.launch.cores import CoreShare, core_shares

LEFT, RIGHT = frozenset([0, 1, 2, 3, 8]), frozenset([4, 5, 6, 7])
GPUS = {"0000:17:00.0": ("GPU-a", "0-3,8"), "0000:65:00.0": ("GPU-b", "4-7"), "0000:ca:00.0": ("GPU-c", "4-7")}


@pytest.fixture(autouse=True)
def _all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _machine(root: Path, nodes: Mapping[str, str], gpus: Mapping[str, tuple[str, str]]) -> Path:
    files = {f"sys/devices/system/node/{name}/cpulist": cores for name, cores in nodes.items()}
    for place, (uuid, cores) in gpus.items():
        files[f"proc/driver/nvidia/gpus/{place}/information"] = f"GPU UUID: \t {uuid}\n"
        files[f"sys/bus/pci/devices/{place}/local_cpulist"] = cores
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.fixture
def two_nodes(tmp_path: Path) -> Path:
    """A machine of two processors: the first has a GPU and five cores, the second two and four."""
    return _machine(tmp_path, {"node0": "0-3,8", "node1": "4-7", "node2": ""}, GPUS)


@pytest.mark.parametrize(("workers", "threads"), [(1, 9), (2, 4), (3, 3), (20, 1)])
def test_where_all_memory_is_alike_all_workers_are(tmp_path: Path, workers: int, threads: int) -> None:
    root = _machine(tmp_path, {"node0": "0-8"}, {})
    assert core_shares([()] * workers, allowed=LEFT | RIGHT, root=root) == [CoreShare(threads=threads)] * workers


def test_workers_keep_near_their_gpus_and_share_with_those_of_the_same_node(two_nodes: Path) -> None:
    assert core_shares([[0], [1], [2]], allowed=LEFT | RIGHT, root=two_nodes) == [
        CoreShare(threads=5, cores=LEFT),
        CoreShare(threads=2, cores=RIGHT),
        CoreShare(threads=2, cores=RIGHT),
    ]


def test_a_worker_of_several_gpus_has_the_cores_of_all_and_the_threads_of_the_least(two_nodes: Path) -> None:
    assert core_shares([[0, 1], [2]], allowed=LEFT | RIGHT, root=two_nodes) == [
        CoreShare(threads=2, cores=LEFT | RIGHT),
        CoreShare(threads=2, cores=RIGHT),
    ]


def test_gpus_are_those_that_cuda_shows(two_nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for visible in ("2,0", "GPU-c,GPU-a"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        shares = core_shares([[0], [1]], allowed=LEFT | RIGHT, root=two_nodes)
        assert [share.cores for share in shares] == [RIGHT, LEFT]


def test_workers_of_the_cpu_take_the_nodes_in_turn_within_what_is_allowed(two_nodes: Path) -> None:
    assert core_shares([(), ()], allowed=frozenset([1, 2, 7]), root=two_nodes) == [
        CoreShare(threads=2, cores=frozenset([1, 2])),
        CoreShare(threads=1, cores=frozenset([7])),
    ]


def test_a_gpu_whose_place_is_not_known_may_use_any_core(two_nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,GPU-a")
    unknown, known = core_shares([[0], [1]], allowed=LEFT | RIGHT, root=two_nodes)
    assert unknown == CoreShare(threads=4)
    assert known == CoreShare(threads=5, cores=LEFT)
