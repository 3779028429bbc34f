"""The `hpo-worker` command. What needs the other packages is imported once they are known to be ours."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.errors import AuthenticationError, HpoError, PermissionDeniedError, SetupError
from hpo.installation import check_installation
from hpo.settings import Settings

from .device.detection import Device, cpu_device, gpu_device

if TYPE_CHECKING:
    from hpo.protocol import WorkerInfo

EXIT_FAILURE = 1
EXIT_TOKEN = 5
"""The token is unknown or lacks the scope; the same status as that of `hpo`."""
_log = logging.getLogger(__name__)

app = typer.Typer(
    name="hpo-worker",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    *,
    gpu: Annotated[int | None, typer.Option("--gpu", min=0, help="Train on this GPU.", show_default=False)] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads (default: OMP_NUM_THREADS, else every core).")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Take trials of this study only.", show_default=False)] = None,
    url: Annotated[str | None, typer.Option(envvar="HPO_URL", help="Address of the API.", show_default=False)] = None,
    token_file: Annotated[Path | None, typer.Option(help="File that holds the token.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Name of this worker (default: host and device).")] = None,
    home: Annotated[
        Path | None, typer.Option(envvar="HPO_HOME", help="Data directory: checkpoints, caches.", show_default=False)
    ] = None,
    exit_when_idle: Annotated[
        float | None, typer.Option(min=0, help="End after this many seconds without a trial.", show_default=False)
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(min=1, help="End after this many trials.", show_default=False)
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU: deterministic kernels only, slower.")
    ] = False,
) -> None:
    """Train trials of studies, one at a time, until a signal or a limit ends it.

    SIGTERM or Ctrl-C writes a checkpoint and gives the trial back; a second one ends at once.
    """
    from .lease.client import ApiClient
    from .lease.worker import Worker, WorkerConfig

    settings = Settings.load(home=home, url=url, token_file=token_file)
    if settings.token is None:
        raise SetupError(
            f"there is no token: start `hpo serve` on this machine, which leaves one in {settings.token_file}, "
            "or give one with --token-file or HPO_TOKEN"
        )
    device = _device(gpu=gpu, cpu=cpu, threads=threads, deterministic=deterministic)
    config = WorkerConfig(
        info=_info(device, name),
        device=device,
        checkpoint_dir=settings.checkpoint_dir,
        cache_dir=settings.cache_dir,
        study=study,
        exit_when_idle_seconds=exit_when_idle,
        max_trials=max_trials,
    )
    with ApiClient(settings.api_url, settings.token) as client:
        worker = Worker(config, client)
        worker.install_signal_handlers()
        _log.info("worker %s on %s, asking %s", config.info.name, _described(device), settings.api_url)
        worker.run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `hpo-worker`. A mistake in its use is reported in one sentence, never with a traceback.

    Raises:
        SystemExit: always; with status 0 when a signal, an option or the lack of trials ended it.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for each heartbeat
    try:
        check_installation()
        app(args=arguments, prog_name="hpo-worker")
    except HpoError as error:
        print(f"hpo-worker: {error}", file=sys.stderr)
        token = isinstance(error, AuthenticationError | PermissionDeniedError)
        raise SystemExit(EXIT_TOKEN if token else EXIT_FAILURE) from None


def _device(*, gpu: int | None, cpu: bool, threads: int | None, deterministic: bool) -> Device:
    if cpu == (gpu is not None):
        raise SetupError("say where to train: either --gpu N or --cpu")
    if gpu is None:
        return cpu_device(threads=threads)
    device = gpu_device(gpu, threads=threads, deterministic=deterministic)
    if device.note is not None:
        _log.warning("%s", device.note)
    return device


def _info(device: Device, name: str | None) -> WorkerInfo:
    from hpo.protocol import WorkerInfo

    host = socket.gethostname()
    # A machine may have several CPU workers, which differ in their process; a GPU has one worker.
    default = f"{host}:cpu-{os.getpid()}" if device.kind == "cpu" else f"{host}:{device.label}"
    return WorkerInfo(
        name=name or default,
        host=host,
        pid=os.getpid(),
        device=device.label,
        gpu_name=device.gpu_name,
        memory_bytes=device.memory_bytes,
        version=version("video-hpo"),
    )


def _described(device: Device) -> str:
    if device.kind == "cpu":
        return f"the CPU ({device.threads} thread{'s' if device.threads > 1 else ''})"
    precision = "bf16" if device.bf16 else "fp32"
    return f"{device.label} ({device.gpu_name}, {(device.memory_bytes or 0) / 2**30:.0f} GiB, {precision})"
