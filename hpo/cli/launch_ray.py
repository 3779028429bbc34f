"""`hpo launch ray`: as many workers on a Ray cluster as there is work for."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import SetupError
from ..trial import CUSTOM, IMAGE, VIDEO
from .app import err, out, settings_of
from .launch import PASS_ON, group, worker_options
from .studies import client_of

if TYPE_CHECKING:
    from ..launch.supervisor import Change
    from ..settings import Settings

_GPU_CPUS: Final = 4.0
_CHOSEN: Final = {
    "gpus": "--gpus-per-worker",
    "memory_share": "--gpus-per-worker below 1",
    "exit_when_idle": "--idle-seconds",
}


@group.command(context_settings=PASS_ON)
def ray(
    context: typer.Context,
    *,
    workers: Annotated[int, typer.Option(min=1, help="No more workers than this.")],
    min_workers: Annotated[int, typer.Option(min=0, help="No fewer, also without work.")] = 0,
    address: Annotated[
        str | None,
        typer.Option(
            help="Head of the cluster, HOST:6379 (default: RAY_ADDRESS, else this machine's).", show_default=False
        ),
    ] = None,
    nodes: Annotated[
        int, typer.Option(min=1, max=64, help="Machines of each worker; above 1, for trials that train on so many.")
    ] = 1,
    gpus_per_worker: Annotated[
        float,
        typer.Option(min=0, max=64, help="On each machine. Below 1, workers share a GPU and its memory; 0 is the CPU."),
    ] = 1.0,
    cpus_per_worker: Annotated[
        float | None, typer.Option(min=0.01, help="Cores of each (default: 4 for a GPU, else 1).", show_default=False)
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(help="NAME=AMOUNT that each takes, such as accelerator_type:A100=0.001, perhaps several times."),
    ] = None,
    idle_seconds: Annotated[float, typer.Option(min=1, help="A worker ends after so long without a trial.")] = 120.0,
    worker_token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token of the workers (default: that of this command).", show_default=False),
    ] = None,
    until_done: Annotated[bool, typer.Option("--until-done", help="End once no trial is left.")] = False,
) -> None:
    """Keep a worker on a Ray cluster for each trial that is left, within bounds. Options of `hpo-worker` may follow.

    Each waits for room, which Ray's autoscaler sees, and is started again after a crash. Where a node is about to be
    taken away, its workers give their trials back with a checkpoint. SIGTERM or Ctrl-C does so with all workers, and
    ends; a second one ends them at once.
    """
    if find_spec("ray") is None:
        raise SetupError("`hpo launch ray` needs Ray, here and on the nodes: pip install 'video-hpo[ray]'")
    from ..launch.ray_agent import Order, Room

    if min_workers > workers:
        raise SetupError(f"--min-workers {min_workers} is more than --workers {workers}")
    if gpus_per_worker > 1 and gpus_per_worker % 1:
        raise SetupError(f"--gpus-per-worker {gpus_per_worker:g}: above 1, a worker has whole GPUs")
    settings, options = settings_of(context), worker_options(context)
    given = _given(options)
    devices = given.get("ranks", max(1, int(gpus_per_worker)))
    room = Room(
        gpus=gpus_per_worker,
        cpus=cpus_per_worker or (_GPU_CPUS * max(1.0, gpus_per_worker) if gpus_per_worker else 1.0),
        others=dict(_resource(text) for text in resource or []),
        nodes=nodes,
    )
    order = Order(
        gpus=room.gpus,
        threads=None if "threads" in given else max(1, int(room.cpus / max(1.0, room.gpus))),
        options=options,
        variables=_variables(settings),
        token=_worker_token(settings, worker_token_file),
        from_host=socket.gethostname(),
    )
    from ..launch.demand import trials_left  # these wait for Ray
    from ..launch.elastic import Bounds, Fleet, keep
    from ..launch.ray_cluster import RayEngine, connected

    study, kinds = given.get("study"), [CUSTOM] if "entry" in given else [VIDEO, IMAGE]
    with client_of(settings) as client, connected(address):
        fleet = Fleet(
            RayEngine(room, order, idle_seconds=idle_seconds),
            Bounds(most=workers, least=min_workers),
            trials_left=partial(trials_left, client, study=study, task_kinds=kinds, gpus=devices, nodes=nodes),
            on_change=_print_change,
        )
        keep(fleet, until_done=until_done)


def _given(options: Sequence[str]) -> dict[str, Any]:
    """Return what a person has written of the options of `hpo-worker`, by the names of their parameters.

    Raises:
        SetupError: one of them is for this launcher to choose.
    """
    from workers.cli import app as worker_app

    command: Any = typer.main.get_command(worker_app)
    parsed = command.make_context("hpo-worker", list(options))
    given = {name for name in parsed.params if parsed.get_parameter_source(name).name == "COMMANDLINE"}
    for name, instead in _CHOSEN.items():
        if name in given:
            raise SetupError(f"--{name.replace('_', '-')} is chosen for each worker: give {instead}")
    return {name: parsed.params[name] for name in given}


def _variables(settings: Settings) -> dict[str, str]:
    found = {"HPO_URL": settings.api_url, "HPO_HOME": str(settings.home)}
    return found if settings.ca_file is None else {**found, "HPO_CA_FILE": str(settings.ca_file)}


def _print_change(change: Change) -> None:
    (err if change.is_fault else out).print(f"{change.worker}: {change.sentence}")


def _worker_token(settings: Settings, file: Path | None) -> str:
    from ..launch.worker import require_token
    from ..settings import secret_in

    return require_token(settings) if file is None else secret_in(file, "--worker-token-file")


def _resource(text: str) -> tuple[str, float]:
    """Return name and amount of `NAME=AMOUNT`.

    Raises:
        SetupError: it is nothing like that.
    """
    name, _, amount = text.rpartition("=")
    try:
        found = float(amount)
    except ValueError:
        found = 0.0
    if not name or not 0 < found < math.inf:
        raise SetupError(f"--resource {text}: write NAME=AMOUNT, such as accelerator_type:A100=0.001")
    return name, found
