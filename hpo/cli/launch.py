"""`hpo launch`: start workers and keep them running; `hpo launch local` does so on this machine."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import SetupError
from .app import app, err, out, settings_of, written_to
from .groups import Group

if TYPE_CHECKING:
    from ..settings import Settings

group = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Start workers and keep them running: on this machine, or on a cluster.",
)
app.add_typer(group, name="launch")
PASS_ON: Final[dict[str, Any]] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings of a command that hands options which are not its own to `hpo-worker`."""
_OF_LAUNCHERS: Final = {"gpu": "--gpus", "cpu": "--gpus none", "name": "no name: each worker has its own"}
"""Options of `hpo-worker` that a launcher chooses, and what a person gives it instead."""
_GROUPS: Final = dict.fromkeys(("nodes", "node_rank", "meet"), "--nodes to `hpo launch slurm` or `hpo launch ray`")


def worker_options(context: typer.Context, *, without: Mapping[str, str] = _GROUPS) -> list[str]:
    """Return the options for `hpo-worker` that a launcher was given, checked as `hpo-worker` checks them.

    Args:
        without: further options that this launcher chooses, and what a person gives it instead.

    Raises:
        SetupError: one of them is for the launcher to choose.
        UsageError: it has no such option, or it has another form.
    """
    from workers.cli import app as worker_app

    options = list(context.args)
    command: Any = typer.main.get_command(worker_app)
    given = command.make_context("hpo-worker", list(options))
    for name, instead in {**_OF_LAUNCHERS, **without}.items():
        if given.get_parameter_source(name).name == "COMMANDLINE":
            raise SetupError(f"--{name.replace('_', '-')} is chosen for each worker: give {instead}")
    return options


def says_threads(options: Sequence[str]) -> bool:
    """Return whether a person has said how many threads a worker is to have."""
    return bool(os.environ.get("OMP_NUM_THREADS")) or says(options, "--threads")


def says(options: Sequence[str], name: str) -> bool:
    """Return whether an option is among these."""
    return any(one.partition("=")[0] == name for one in options)


@group.command(context_settings=PASS_ON)
def local(
    context: typer.Context,
    *,
    gpus: Annotated[
        str, typer.Option(help="A worker on each of these: `all`, numbers as in `0,1,3`, or `none` for the CPU.")
    ] = "all",
    gpus_per_worker: Annotated[
        int, typer.Option(min=1, help="A worker for so many of them each, for trials that train on several.")
    ] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --gpus none: so many workers.", show_default=False)
    ] = None,
) -> None:
    """Keep a worker running on each GPU of this machine, or several on its CPU. Options of `hpo-worker` may follow.

    A worker that crashes is started again, after a wait that doubles. SIGTERM or Ctrl-C has all of them write a
    checkpoint and give their trials back; a second one ends them at once. If this program is killed, they end in order.
    """
    from ..launch.cores import core_shares
    from ..launch.supervisor import Slot, Supervisor, exit_status
    from ..launch.watch import WorkerWatch
    from ..launch.worker import WorkerCommand, require_token, worker_environment
    from .launch_view import Lines, LiveTable
    from .studies import client_of

    settings, options = settings_of(context), worker_options(context, without={})
    require_token(settings)
    devices = _grouped(_devices(gpus, workers), gpus_per_worker)
    if len(devices) > 1 and says(options, "--nodes"):
        raise SetupError(
            f"a group has one worker on each machine, and here would be {len(devices)}: give --gpus-per-worker "
            f"{gpus_per_worker * len(devices)}"
        )
    is_said = says_threads(options)
    commands = [
        WorkerCommand(
            name=name, gpus=group, threads=None if is_said else share.threads, cores=share.cores, options=options
        )
        for name, group, share in zip(_names(devices), devices, core_shares(devices), strict=True)
    ]
    folder, environment = _log_folder(settings), worker_environment(settings)
    slots = [Slot(command, log=folder / f"{command.name}.log", environment=environment) for command in commands]
    out.print(f"{len(slots)} worker{'s' * (len(slots) > 1)}, asking {settings.api_url}; logs in {folder}")
    with client_of(settings) as client, WorkerWatch(client) as watch:
        view = LiveTable(slots, watch) if sys.stdout.isatty() else Lines(slots, watch)
        with view.shown():
            Supervisor(slots).run(on_change=view.change, on_look=view.look)
    raise typer.Exit(exit_status(slots))


def _grouped(gpus: Sequence[int | None], size: int) -> list[tuple[int, ...]]:
    """Return the GPUs of each worker; none for one on the CPU.

    Raises:
        SetupError: they do not go into groups of `size`.
    """
    numbers = [gpu for gpu in gpus if gpu is not None]
    if not numbers:
        return [() for _ in gpus]
    if len(numbers) % size:
        raise SetupError(f"--gpus-per-worker {size}: {len(numbers)} GPUs do not go into groups of {size}")
    return [tuple(numbers[first : first + size]) for first in range(0, len(numbers), size)]


def _devices(gpus: str, workers: int | None) -> list[int | None]:
    """Return the GPUs that have workers; None is the CPU.

    Raises:
        SetupError: the text names no GPUs, or there are none.
    """
    if gpus == "none":
        return [None] * (workers or 1)
    if workers is not None:
        raise SetupError("--workers is for --gpus none: each GPU has one worker")
    if gpus == "all":
        return list(_all_gpus())
    try:
        return [int(number) for number in gpus.split(",")]
    except ValueError:
        raise SetupError(f"--gpus {gpus}: give `all`, numbers as in `0,1,3`, or `none`") from None


def _all_gpus() -> list[int]:
    from workers.device.detection import list_gpus

    found, problem = list_gpus()
    for gpu in found:
        if gpu.problem is not None:
            err.print(f"GPU {gpu.index} ({gpu.name}) cannot be used, and has no worker: {gpu.problem}")
    usable = [gpu.index for gpu in found if gpu.problem is None]
    if not usable:
        why = f" ({problem})" if problem else ""
        raise SetupError(f"there is no GPU that can be used{why}: `--gpus none --workers N` runs workers on the CPU")
    return usable


def _names(devices: Sequence[Sequence[int]]) -> list[str]:
    """Return a name for each worker: of its GPUs, and where several share them, or the CPU, with a number."""
    names: list[str] = []
    for place, gpus in enumerate(devices):
        before = sum(other == gpus for other in devices[:place])
        of_gpus = f"gpu-{'+'.join(map(str, gpus))}{f'-{before + 1}' * (before > 0)}"
        names.append(of_gpus if gpus else f"cpu-{place}")
    return names


def _log_folder(settings: Settings) -> Path:
    from ..launch.logs import log_folder

    folder = log_folder(settings.home) / f"{socket.gethostname()}-{os.getpid()}"
    with written_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
