"""What is ordered for a node of a Ray cluster, and what is refused there; no Ray is needed."""

from __future__ import annotations

import pickle
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.launch.ray_agent import Order, WorkerAgent

TOKEN = "hpo_secret"  # noqa: S105 - of no service


def _order(home: Path, *, gpus: float = 1.0, from_host: str | None = None) -> Order:
    return Order(
        name="worker-1",
        gpus=gpus,
        threads=4,
        options=["--study", "mine"],
        variables={"HPO_URL": "http://127.0.0.1:1", "HPO_HOME": str(home)},
        token=TOKEN,
        from_host=from_host or socket.gethostname(),
    )


@pytest.mark.parametrize(
    ("gpus", "device"),
    [
        (1.0, ["--gpu", "0", "--threads", "4"]),
        (0.25, ["--gpu", "0", "--threads", "4", "--memory-share", "0.25"]),
        (0.0, ["--cpu", "--threads", "4"]),
        (2.0, ["--gpus", "0,1", "--threads", "4"]),
    ],
)
def test_a_share_of_a_gpu_is_a_share_of_its_memory(tmp_path: Path, gpus: float, device: list[str]) -> None:
    order = _order(tmp_path, gpus=gpus)
    assert order.command().arguments()[1:] == [*device, "--study", "mine"]


def test_the_workers_of_a_group_are_told_where_it_meets(tmp_path: Path) -> None:
    order = replace(_order(tmp_path, gpus=2.0), nodes=2, node_rank=1)
    group = ["--nodes", "2", "--node-rank", "1", "--meet", "10.0.0.1:4000"]
    assert order.command("10.0.0.1:4000").arguments()[1:] == [
        "--gpus",
        "0,1",
        "--threads",
        "4",
        *group,
        "--study",
        "mine",
    ]


def test_the_token_is_in_the_environment_and_in_nothing_that_is_shown(tmp_path: Path) -> None:
    order = pickle.loads(pickle.dumps(_order(tmp_path)))  # noqa: S301 - made here
    assert order.environment()["HPO_TOKEN"] == TOKEN
    assert TOKEN not in repr(order)
    assert TOKEN not in " ".join(order.command().arguments())


def test_an_address_of_another_machine_alone_is_refused_on_the_node(tmp_path: Path) -> None:
    report = WorkerAgent(_order(tmp_path, from_host="elsewhere")).look()
    assert (report.state, report.changes[0].is_fault) == ("given up", True)
    assert report.changes[0].sentence.startswith("http://127.0.0.1:1 is an address of elsewhere alone")
    assert not list(tmp_path.iterdir())


def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    report = WorkerAgent(_order(tmp_path / "home")).look()
    assert report.state == "given up"
    assert f"the data directory {tmp_path}/home cannot be used on {socket.gethostname()}" in report.changes[0].sentence
