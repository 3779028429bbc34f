"""`hpo launch slurm`: workers in the jobs of a Slurm array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from ..errors import SetupError
from .app import err, out, settings_of, written_to
from .launch import PASS_ON, group, worker_options

if TYPE_CHECKING:
    from ..settings import Settings

IDLE_SECONDS = 600
"""After which a job without a trial ends, where nobody says otherwise: its GPU is somebody else's turn."""


@group.command(context_settings=PASS_ON)
def slurm(
    context: typer.Context,
    *,
    time: Annotated[str, typer.Option(help="Time limit of a job, as Slurm writes it: 240, 04:00:00, 2-00:00:00.")],
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of the array.")] = 1,
    nodes: Annotated[
        int,
        typer.Option(min=1, max=64, help="Machines of a job; above 1, its workers are a group for trials of so many."),
    ] = 1,
    gpus_per_job: Annotated[int, typer.Option(min=0, help="GPUs of a job on each machine; 0 for the CPU.")] = 1,
    gpus_per_worker: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs of a worker (default: 1, or with --nodes all).", show_default=False),
    ] = None,
    cpus_per_job: Annotated[int | None, typer.Option(min=1, help="Cores of a job.", show_default=False)] = None,
    mem: Annotated[str | None, typer.Option(help="Memory of a job: 32G.", show_default=False)] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.", show_default=False)] = None,
    account: Annotated[str | None, typer.Option(help="Slurm's account.", show_default=False)] = None,
    notice: Annotated[
        int, typer.Option(min=1, help="Seconds before the time limit at which the workers give their trials back.")
    ] = 300,
    setup: Annotated[
        list[str] | None,
        typer.Option(help="A line of shell that runs first, perhaps several times."),
    ] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="A further option of sbatch: qos=high. Perhaps several times.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script for sbatch, and submit nothing.")
    ] = False,
) -> None:
    """Run workers in the jobs of a Slurm array. Options of `hpo-worker` may follow.

    Before its time limit, a job has its workers write checkpoints and give their trials back, and goes back into the
    queue; it ends when there is no trial for ten minutes (--exit-when-idle). The data directory, and this installation,
    must be on a file system that all nodes see.
    """
    from ..launch.slurm import SlurmArray, WorkersJob, minutes_of, script, submit
    from ..launch.slurm_tokens import remove_outlived_tokens, write_token
    from ..launch.worker import require_token

    settings, options = settings_of(context), worker_options(context)
    token = require_token(settings)
    array = SlurmArray(
        jobs=jobs,
        minutes=minutes_of(time),
        notice_seconds=notice,
        gpus=gpus_per_job,
        nodes=nodes,
        cpus=cpus_per_job,
        memory=mem,
        partition=partition,
        account=account,
        setup=setup or (),
        further=_further(sbatch or ()),
    )
    if array.notice_seconds >= 60 * array.minutes:
        raise SetupError(f"--notice {notice}: a job of {array.minutes} min ends before that; choose a shorter notice")
    folder = settings.home / "launch" / f"slurm-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    if dry_run:
        out.print(script(array, folder), end="")
        return
    _check_service(settings)
    remove_outlived_tokens(settings.home)
    with written_to(folder / "token"):
        token_file = write_token(folder, token)
    each = gpus_per_worker or (max(1, gpus_per_job) if nodes > 1 else 1)
    command = _launcher(settings, token_file, options, gpus=array.gpus, gpus_per_worker=each)
    number = submit(WorkersJob(command, nodes=nodes), array, folder)
    out.print(f"submitted {jobs} job{'s' * (jobs > 1)} as {number}; their outputs are in {folder}")
    out.print(f"`squeue -j {number}` shows them, `scancel {number}` ends them, `hpo workers` what they train")


def _further(options: Sequence[str]) -> dict[str, str]:
    found = {}
    for option in options:
        name, equals, value = option.removeprefix("--").partition("=")
        if not equals:
            raise SetupError(f"--sbatch {option}: write it as NAME=VALUE, such as qos=high")
        found[name] = value
    return found


def _check_service(settings: Settings) -> None:
    """Check that the service answers, and that the jobs can find it at all.

    Raises:
        HpoError: it does not answer, or refuses the token.
    """
    from .studies import client_of

    with client_of(settings) as client:
        client.health()
    if urlsplit(settings.api_url).scheme == "http":
        err.print(f"without TLS: everybody between the nodes and {settings.api_url} can read the token")


def _launcher(
    settings: Settings, token_file: Path, options: Sequence[str], *, gpus: int, gpus_per_worker: int
) -> list[str]:
    """Return the command that a job runs."""
    from ..installation import program_path

    root = ["--home", str(settings.home), "--url", settings.api_url, "--token-file", str(token_file)]
    idle = [] if any(one.startswith("--exit-when-idle") for one in options) else ["--exit-when-idle", str(IDLE_SECONDS)]
    devices = ["--gpus", "all", "--gpus-per-worker", str(gpus_per_worker)] if gpus else ["--gpus", "none"]
    return [program_path("hpo"), *root, "launch", "local", *devices, *options, *idle]
