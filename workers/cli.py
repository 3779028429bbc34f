"""The `hpo-worker` command. What needs the other packages is imported once they are known to be ours."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from hpo.client.connection import is_loopback
from hpo.errors import AuthenticationError, HpoError, PermissionDeniedError, SetupError
from hpo.installation import check_installation
from hpo.plain_text import PlainFormatter, plain
from hpo.settings import Settings

from .device.card_lock import card_locked
from .device.detection import Device, cpu_device, gpu_device
from .errors import MachineError

if TYPE_CHECKING:
    from hpo.protocol import WorkerInfo

    from .lease.client import ApiClient

EXIT_FAILURE = 1
EXIT_TOKEN = 5
"""The token is unknown or lacks the scope; the same status as that of `hpo`."""
EXIT_MACHINE = 7
"""The machine cannot train, such as after its GPU failed: no use in starting this worker again before a repair."""
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
    weights_root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of weights files, perhaps several times (default: HPO_WEIGHTS_ROOTS)."),
    ] = None,
    data_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that data sets may be in, perhaps several times (default: HPO_DATA_ROOTS, else any with an "
            "API on this machine, and the data directory with another)."
        ),
    ] = None,
    exit_when_idle: Annotated[
        float | None, typer.Option(min=0, help="End after this many seconds without a trial.", show_default=False)
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(min=1, help="End after this many trials.", show_default=False)
    ] = None,
    hang_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Give a trial back without a batch, or a sign of life, for this long (default: 20, or 5).",
            show_default=False,
        ),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU: deterministic kernels only, slower.")
    ] = False,
    memory_share: Annotated[
        float, typer.Option(help="Part of the GPU's memory that this worker takes; others may take the rest.")
    ] = 1.0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files of TensorBoard into the folder of each trial.")
    ] = False,
) -> None:
    """Train trials of studies, one at a time, until a signal or a limit ends it.

    SIGTERM or Ctrl-C writes a checkpoint and gives the trial back; a second one ends at once. The exit status is 7 if
    the machine cannot train, 5 if the token is refused, and 1 after any other error.
    """
    from .lease.cleanup import WorkerCleanup
    from .lease.watchdog import Patience
    from .lease.worker import Worker, WorkerConfig

    settings = Settings.load(
        home=home, url=url, token_file=token_file, weights_roots=weights_root, data_roots=data_root
    )
    if settings.token is None:
        raise SetupError(
            f"there is no token: start `hpo serve` on this machine, which leaves one in {settings.token_file}, "
            "or give one with --token-file or HPO_TOKEN"
        )
    if tensorboard and find_spec("tensorboard") is None:
        raise SetupError("--tensorboard needs TensorBoard: pip install 'video-hpo[tensorboard]'")
    device = _device(gpu=gpu, cpu=cpu, threads=threads, deterministic=deterministic, memory_share=memory_share)
    config = WorkerConfig(
        info=_info(device, name),
        device=device,
        checkpoint_dir=settings.checkpoint_dir,
        cache_dir=settings.cache_dir,
        weights_roots=settings.weights_roots,
        checkpoint_roots=settings.checkpoint_roots[1:],
        data_roots=_data_roots(settings),
        study=study,
        exit_when_idle_seconds=exit_when_idle,
        max_trials=max_trials,
        tensorboard=tensorboard,
        patience=Patience() if hang_minutes is None else Patience.of(60 * hang_minutes),
    )
    with _locked(device, settings.home), _client(settings, settings.token) as client:
        worker = Worker(config, client, clean_up=WorkerCleanup(settings.checkpoint_dir, client))
        worker.install_signal_handlers()
        _log.info("worker %s on %s, asking %s", config.info.name, _described(device), settings.api_url)
        worker.run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `hpo-worker`. A mistake in its use is reported in one sentence, never with a traceback.

    Raises:
        SystemExit: always; with status 0 when a signal, an option or the lack of trials ended it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for each heartbeat
    try:
        check_installation()
        app(args=arguments, prog_name="hpo-worker")
    except HpoError as error:
        print(plain(f"hpo-worker: {error}"), file=sys.stderr)
        raise SystemExit(_exit_status(error)) from None


def _exit_status(error: HpoError) -> int:
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return EXIT_TOKEN
    return EXIT_MACHINE if isinstance(error, MachineError) else EXIT_FAILURE


def _device(
    *, gpu: int | None, cpu: bool, threads: int | None, deterministic: bool, memory_share: float = 1.0
) -> Device:
    if cpu == (gpu is not None):
        raise SetupError("say where to train: either --gpu N or --cpu")
    if not 0 < memory_share <= 1:
        raise SetupError(f"--memory-share is {memory_share:g}; it is the part of a GPU's memory, above 0 and up to 1")
    if gpu is None:
        if memory_share < 1:
            raise SetupError("--memory-share is for a GPU; leave it out with --cpu")
        return cpu_device(threads=threads)
    device = gpu_device(gpu, threads=threads, deterministic=deterministic)
    if device.note is not None:
        _log.warning("%s", device.note)
    return replace(device, memory_share=memory_share)


def _client(settings: Settings, token: str) -> ApiClient:
    from .lease.client import ApiClient

    return ApiClient(settings.api_url, token, server_file=settings.proving_file, ca_file=settings.ca_file)


def _data_roots(settings: Settings) -> tuple[Path, ...] | None:
    """Return where data sets may be; None for anywhere: an API on this machine is taken for the same person's."""
    if settings.data_roots:
        return settings.data_roots
    return None if is_loopback(urlsplit(settings.api_url).hostname or "") else (settings.home,)


def _locked(device: Device, home: Path) -> AbstractContextManager[None]:
    """Return a context in which no other worker takes this worker's share of its GPU; of a CPU there are no shares."""
    if device.kind == "cpu":
        return nullcontext()
    return card_locked(home / "gpus", device.uuid or f"gpu-{device.visible}", share=device.memory_share)


def _info(device: Device, name: str | None) -> WorkerInfo:
    from hpo.protocol import WorkerInfo

    host = socket.gethostname()
    # A machine may have several CPU workers, which differ in their process; a GPU has one worker, which is not
    # named by its number: two jobs that see one GPU each both call theirs 0.
    default = f"{host}:cpu-{os.getpid()}" if device.kind == "cpu" else f"{host}:{device.short_id}"
    if device.memory_share < 1:
        default += f"-{os.getpid()}"
    return WorkerInfo(
        name=name or default,
        host=host,
        pid=os.getpid(),
        device=device.label,
        gpu_name=device.gpu_name,
        memory_bytes=device.usable_bytes,
        version=version("video-hpo"),
        start_id=secrets.token_hex(8),
    )


def _described(device: Device) -> str:
    if device.kind == "cpu":
        return f"the CPU ({device.threads} thread{'s' if device.threads > 1 else ''})"
    precision = "bf16" if device.bf16 else "fp32"
    return f"{device.label} ({device.gpu_name}, {(device.usable_bytes or 0) / 2**30:.0f} GiB, {precision})"
