"""What looks after one worker on a node of a Ray cluster: started again after crashes, ended before its node is gone.

This is the actor's code. It runs on the node, where Ray has chosen the GPU (`CUDA_VISIBLE_DEVICES`).
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ..client.connection import is_loopback
from ..errors import HpoError, SetupError
from ..installation import check_installation, child_environment
from .elastic import Report
from .supervisor import LOOK_SECONDS, Change, Slot, SlotState
from .worker import WorkerCommand

DRAIN_LOOK_SECONDS: Final = 2.0
_LOG_CHARACTERS: Final = 1000
_TAKEN_AWAY: Final = "gives its trial back and ends: its node is about to be taken away"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one worker takes of a node."""

    gpus: float
    """On each machine, as the following."""
    cpus: float
    others: Mapping[str, float]
    """Further resources of Ray, such as `accelerator_type:A100`."""
    nodes: int = 1
    """Machines: above 1, a worker and those that follow it."""

    def bundle(self) -> dict[str, float]:
        """Return it as Ray names it."""
        found = {"GPU": self.gpus, "CPU": self.cpus, **self.others}
        return {name: amount for name, amount in found.items() if amount > 0}

    def __str__(self) -> str:
        each = ", ".join(f"{amount:g} {name}" for name, amount in self.bundle().items())
        return each if self.nodes == 1 else f"{each} on each of {self.nodes} nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A worker to look after. The token travels in it: environments of Ray's actors are logged, arguments are not."""

    name: str = ""
    gpus: float
    """Share of a GPU up to 1, or a number of GPUs; 0 for the CPU."""
    nodes: int = 1
    node_rank: int = 0
    """Of `nodes` machines that train one trial together; the worker of rank 0 leads."""
    threads: int | None
    options: Sequence[str]
    variables: Mapping[str, str]
    """Of the worker's environment: where the service and the data directory are."""
    token: str = field(repr=False)
    from_host: str
    """The machine on which it was ordered."""

    def command(self, meet: str | None = None) -> WorkerCommand:
        """Return the command of the worker: of the GPUs that Ray lets it see, it takes the first ones.

        Args:
            meet: where its group meets, if it is of one.
        """
        share = ["--memory-share", f"{self.gpus:g}"] if 0 < self.gpus < 1 else []
        gpus = range(math.ceil(self.gpus))
        group = ["--nodes", str(self.nodes), "--node-rank", str(self.node_rank), "--meet", meet] if meet else []
        return WorkerCommand(name=self.name, gpus=gpus, threads=self.threads, options=[*share, *group, *self.options])

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the worker on this machine."""
        return {**child_environment(), **self.variables, "HPO_TOKEN": self.token}


def node_is_draining() -> bool:
    """Return whether the node of this process is about to be taken away.

    Ray has no public call for that; its own Ray Train asks in this way.
    """
    import ray

    try:
        draining = ray._private.state.state.get_draining_nodes()
    except ray.exceptions.RayError:  # the head does not answer for now
        return False
    return ray.get_runtime_context().get_node_id() in draining


class WorkerAgent:
    """One worker, kept running by a thread that lives as long as it does: the worker ends with this process."""

    def __init__(
        self, order: Order, meet: str | None = None, *, is_draining: Callable[[], bool] = node_is_draining
    ) -> None:
        """Start the worker.

        Args:
            meet: where its group meets, if it follows; a leader chooses that.
        """
        if order.nodes > 1 and order.node_rank == 0:
            meet = _free_address()
        self._meet = meet
        self._host = socket.gethostname()
        self._is_draining = is_draining
        self._asked = 0
        self._is_leaving = False
        self._changes: list[Change] = []
        self._lock = threading.Lock()
        try:
            self._slot: Slot | None = _slot(order, self._host, meet)
        except HpoError as error:
            self._slot = None
            self._changes.append(Change(worker=order.name, sentence=str(error), is_fault=True))
        else:
            self._keeper = threading.Thread(target=self._keep, args=(self._slot,), name="worker", daemon=True)
            self._keeper.start()

    def meeting(self) -> str | None:
        """Return where the group of the worker meets, as `HOST:PORT`."""
        return self._meet

    def look(self) -> Report:
        """Return what the worker does and what happened since the last call."""
        with self._lock:
            changes, self._changes = tuple(self._changes), []
            slot = self._slot
            is_kept = slot is not None and (slot.is_over or self._keeper.is_alive())
            state: SlotState = slot.state if slot is not None and is_kept else "given up"
            return Report(
                host=self._host,
                state=state,
                status=None if slot is None else slot.status,
                is_leaving=self._is_leaving,
                changes=changes,
                said="" if slot is None or state != "given up" else _end_of(slot.log),
            )

    def drain(self, *, at_once: bool = False) -> None:
        """Ask the worker to give its trial back and end; or to end at once."""
        self._is_leaving = True
        self._asked = max(self._asked, 2 if at_once else 1)

    def _keep(self, slot: Slot) -> None:
        obeyed, looks_at = 0, 0.0
        while not slot.is_over:
            now = time.monotonic()
            is_taken_away = False
            if not self._is_leaving and now >= looks_at:
                looks_at = now + DRAIN_LOOK_SECONDS
                is_taken_away = self._is_draining()
            with self._lock:  # a state is seen together with what led to it
                if is_taken_away:
                    self._changes.append(Change(worker=slot.command.name, sentence=_TAKEN_AWAY))
                    self.drain()
                while obeyed < self._asked:
                    obeyed += 1
                    slot.drain()
                if (change := slot.step(now)) is not None:
                    self._changes.append(change)
            time.sleep(LOOK_SECONDS)


def _free_address() -> str:
    """Return the address of this node with a port that nobody has now."""
    import ray

    host = ray.util.get_node_ip_address()
    with socket.create_server((host, 0)) as found:
        return f"{host}:{found.getsockname()[1]}"


def _slot(order: Order, host: str, meet: str | None) -> Slot:
    check_installation()
    url = order.variables.get("HPO_URL", "")
    if host != order.from_host and is_loopback(urlsplit(url).hostname or ""):
        raise SetupError(
            f"{url} is an address of {order.from_host} alone, which a worker on {host} cannot reach: serve with "
            "`hpo serve --host 0.0.0.0` and TLS, and give its address with --url"
        )
    folder = Path(order.variables["HPO_HOME"]) / "launch" / "ray"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"the data directory {folder.parents[1]} cannot be used on {host} ({error.strerror}): name another with "
            "--home"
        ) from error
    log = folder / f"{host}-{os.getpid()}.log"
    return Slot(order.command(meet), log=log, environment=order.environment())


def _end_of(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-_LOG_CHARACTERS:].strip()
    except OSError:
        return ""
