"""The `hpo-worker` command. What needs the other packages is imported once they are known to be ours."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import typer

from hpo.client.connection import is_loopback
from hpo.errors import AuthenticationError, HpoError, PermissionDeniedError, SetupError
from hpo.installation import EXIT_MACHINE, EXIT_TOKEN, check_installation
from hpo.plain_text import PlainFormatter, plain
from hpo.settings import Settings

from .device.card_lock import card_locked
from .device.detection import Device, cpu_device, gpu_device, gpu_group, list_gpus, shared_cpu
from .errors import MachineError

if TYPE_CHECKING:
    from hpo.protocol import WorkerInfo

    from .lease.cleanup import WorkerCleanup
    from .lease.client import ApiClient
    from .lease.worker import WorkerConfig
    from .process.group import Followers, Hello

EXIT_FAILURE = 1
_log = logging.getLogger(__name__)


class Compile(StrEnum):
    """What `--compile` takes."""

    BLOCKS = "blocks"
    GRAPHS = "graphs"


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
    gpus: Annotated[
        str | None,
        typer.Option(
            help="Train on these GPUs, such as 0,1,2,3, or `all`: trials of studies that ask for so many or fewer.",
            show_default=False,
        ),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU.")] = False,
    ranks: Annotated[
        int,
        typer.Option(min=1, help="With --cpu: trials of so many processes or fewer, to try such out."),
    ] = 1,
    nodes: Annotated[
        int,
        typer.Option(min=1, max=64, help="Trials on so many machines: this is one of a group of workers, one on each."),
    ] = 1,
    node_rank: Annotated[
        int,
        typer.Option(min=0, help="With --nodes: which one; 0 leads the group, and the others follow it."),
    ] = 0,
    meet: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="With --nodes: where the leader is reached.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads (default: OMP_NUM_THREADS, else every core).")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Take trials of this study only.", show_default=False)] = None,
    url: Annotated[str | None, typer.Option(envvar="HPO_URL", help="Address of the API.", show_default=False)] = None,
    token_file: Annotated[Path | None, typer.Option(help="File that holds the token.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Name of this worker (default: host and device).")] = None,
    host: Annotated[
        str | None,
        typer.Option(
            envvar="HPO_HOST",
            help="Machine that this worker says it is on (default: the host name); in a container, its node.",
            show_default=False,
        ),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(envvar="HPO_HOME", help="Data directory: checkpoints, caches.", show_default=False)
    ] = None,
    weights_root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of weights files, perhaps several times (default: HPO_WEIGHTS_ROOTS)."),
    ] = None,
    data_root: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder that data sets may be in, or address such as s3://bucket, perhaps several times (default: "
            "HPO_DATA_ROOTS, else any folder with an API on this machine, and the data directory with another)."
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
    readers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="On a GPU: threads that read the clips of the next batches (default: every core, up to 4).",
            show_default=False,
        ),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU: deterministic kernels only, slower.")
    ] = False,
    compile_: Annotated[
        Compile | None,
        typer.Option(
            "--compile",
            help="Compile the blocks of models for training (torch.compile); `graphs` also makes CUDA graphs of them.",
            show_default=False,
        ),
    ] = None,
    memory_share: Annotated[
        float, typer.Option(help="Part of the GPU's memory that this worker takes; others may take the rest.")
    ] = 1.0,
    entry: Annotated[
        str | None,
        typer.Option(
            help="Run this function of your own: MODULE:FUNCTION or FILE.py:FUNCTION, and no other trials.",
            show_default=False,
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files of TensorBoard into the folder of each trial.")
    ] = False,
    drained_status: Annotated[
        int,
        typer.Option(
            min=0,
            max=255,
            help="Exit status after SIGTERM or Ctrl-C. A Job of Kubernetes counts 0 as the end of all work: give 143.",
        ),
    ] = 0,
) -> None:
    """Train trials of studies, one at a time, until a signal or a limit ends it.

    SIGTERM or Ctrl-C writes a checkpoint and gives the trial back; a second one ends at once. The exit status is 7 if
    the machine cannot train, 5 if the token is refused, and 1 after any other error.
    """
    from hpo import traces

    from .functions.entry import Entry
    from .lease.cleanup import WorkerCleanup
    from .lease.watchdog import Patience
    from .lease.worker import WorkerConfig

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
    address = _meeting(nodes, node_rank, meet, entry)
    device = _device(
        gpus=_wanted(gpu, gpus), cpu=cpu, threads=threads, deterministic=deterministic, memory_share=memory_share
    )
    if ranks > 1:
        device = shared_cpu(device, ranks)
    if device.ranks > 1 and entry is not None:
        raise SetupError("a function of your own starts on several GPUs by itself: use --entry with --gpu or --cpu")
    if node_rank > 0:
        assert address is not None  # noqa: S101 - `_meeting` wants one for it
        hello = _hello(device, nodes, node_rank, host)
        if _follow(settings, settings.token, device, address, hello, readers=readers, exit_when_idle=exit_when_idle):
            raise typer.Exit(drained_status)
        return
    config = WorkerConfig(
        info=_info(device, name, nodes, host),
        device=device,
        checkpoint_dir=settings.checkpoint_dir,
        cache_dir=settings.cache_dir,
        weights_roots=settings.weights_roots,
        checkpoint_roots=settings.checkpoint_roots[1:],
        data_roots=_data_roots(settings),
        remote_roots=settings.remote_roots,
        study=study,
        exit_when_idle_seconds=exit_when_idle,
        max_trials=max_trials,
        tensorboard=tensorboard,
        readers=readers,
        compile=_compiled(compile_, device),
        entry=None if entry is None else Entry.parse(entry),
        patience=Patience() if hang_minutes is None else Patience.of(60 * hang_minutes),
    )
    traces.start("hpo-worker")
    with _locked(device, settings.home), _client(settings, settings.token) as client:
        clean_up = WorkerCleanup(settings.checkpoint_dir, client)
        _log.info("worker %s on %s, asking %s", config.info.name, _described(device), settings.api_url)
        if address is None:
            is_drained = _work(config, client, clean_up)
        else:
            followers = _followers(settings.token, address, _hello(device, nodes, 0, host))
            is_drained = _lead(config, client, clean_up, followers)
    if is_drained:
        raise typer.Exit(drained_status)


def _work(config: WorkerConfig, client: ApiClient, clean_up: WorkerCleanup) -> bool:
    """Work as a worker that is alone; return whether a signal ended it."""
    from .lease.worker import Worker

    worker = Worker(config, client, clean_up=clean_up)
    worker.install_signal_handlers()
    worker.run()
    return worker.is_stopping


def _lead(config: WorkerConfig, client: ApiClient, clean_up: WorkerCleanup, followers: Followers) -> bool:
    """Work as the leader of a group; return whether a signal ended it."""
    from .lease.worker import Worker
    from .process.group import LeadingProcesses

    processes = LeadingProcesses(followers, config.device, config.checkpoint_dir)
    worker = Worker(config, client, standby=processes, may_claim=followers.are_there, clean_up=clean_up)
    worker.install_signal_handlers()
    worker.run()
    if not worker.is_stopping:  # after a signal, another leader may come
        followers.dismiss()
    return worker.is_stopping


def _followers(token: str, address: tuple[str, int], own: Hello) -> Followers:
    from .process.group import Followers

    return Followers(address, token, own)


def _follow(
    settings: Settings,
    token: str,
    device: Device,
    address: tuple[str, int],
    hello: Hello,
    *,
    readers: int | None,
    exit_when_idle: float | None,
) -> bool:
    """Follow the leader of a group; return whether a signal ended it."""
    from .process.follower import Follower, FollowerConfig

    own = {
        "cache_dir": settings.cache_dir,
        "weights_roots": list(settings.weights_roots),
        "data_roots": None if (roots := _data_roots(settings)) is None else list(roots),
        "remote_roots": list(settings.remote_roots),
        "threads": device.threads,
        "memory_share": device.memory_share,
        **({} if readers is None else {"readers": readers}),
    }
    config = FollowerConfig(hello=hello, address=address, device=device, own=own, exit_when_idle_seconds=exit_when_idle)
    with _locked(device, settings.home):
        follower = Follower(config, token)
        follower.install_signal_handlers()
        _log.info("follower of node rank %d on %s", hello.node, _described(device))
        follower.run()
    return follower.is_stopping


def _hello(device: Device, nodes: int, node: int, host: str | None) -> Hello:
    from .process.group import Hello

    return Hello(
        node=node,
        host=host or socket.gethostname(),
        nodes=nodes,
        device=device.kind,
        gpus=device.ranks,
        gpu_name=device.gpu_name,
        bf16=device.bf16,
        deterministic=device.deterministic,
        version=version("video-hpo"),
        torch=version("torch"),
    )


def _meeting(nodes: int, node_rank: int, meet: str | None, entry: str | None) -> tuple[str, int] | None:
    """Return where a group of machines meets; None for a worker that is alone.

    Raises:
        SetupError: the options do not fit together.
    """
    from .process.channel import address_of

    if nodes == 1:
        if node_rank or meet is not None:
            raise SetupError("--node-rank and --meet are for groups of machines: give --nodes too")
        return None
    if entry is not None:
        raise SetupError("a function of your own starts on several machines by itself: use --entry without --nodes")
    if node_rank >= nodes:
        raise SetupError(f"--node-rank {node_rank}: of {nodes} machines they are 0 to {nodes - 1}")
    if meet is None or (address := address_of(meet)) is None:
        given = "" if meet is None else f" {meet}"
        raise SetupError(f"--meet{given}: give HOST:PORT, where the machines reach the one of node rank 0")
    return address


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `hpo-worker`. A mistake in its use is reported in one sentence, never with a traceback.

    Raises:
        SystemExit: always; with status 0 when an option or the lack of trials ended it, or a signal unless
            --drained-status says otherwise.
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
    *, gpus: list[int], cpu: bool, threads: int | None, deterministic: bool, memory_share: float = 1.0
) -> Device:
    if cpu == bool(gpus):
        raise SetupError("say where to train: either --gpu N or --cpu; --gpus LIST is for trials on several")
    if not 0 < memory_share <= 1:
        raise SetupError(f"--memory-share is {memory_share:g}; it is the part of a GPU's memory, above 0 and up to 1")
    if not gpus:
        if memory_share < 1:
            raise SetupError("--memory-share is for a GPU; leave it out with --cpu")
        return cpu_device(threads=threads)
    found = [gpu_device(gpu, threads=threads, deterministic=deterministic) for gpu in gpus]
    for device in found:
        if device.note is not None:
            _log.warning("%s", device.note)
    shared = [replace(device, memory_share=memory_share) for device in found]
    return shared[0] if len(shared) == 1 else gpu_group(shared)


def _compiled(wanted: Compile | None, device: Device) -> Literal["blocks", "graphs"] | None:
    if wanted is Compile.GRAPHS and device.kind == "cpu":
        raise SetupError("--compile graphs needs a GPU; --compile blocks works on a CPU too")
    return None if wanted is None else "graphs" if wanted is Compile.GRAPHS else "blocks"


def _wanted(gpu: int | None, gpus: str | None) -> list[int]:
    """Return the numbers of the GPUs to train on."""
    if gpus is None:
        return [] if gpu is None else [gpu]
    if gpu is not None:
        raise SetupError("give --gpu or --gpus, not both")
    if gpus.strip() == "all":
        found, problem = list_gpus()
        if not found:
            why = f" ({problem})" if problem else ""
            raise SetupError(f"--gpus all: there is no GPU here{why}; --cpu trains without one")
        return [one.index for one in found]
    names = [name.strip() for name in gpus.split(",")]
    if not all(name.isdecimal() for name in names) or len(set(names)) < len(names):
        raise SetupError(f"--gpus {gpus}: name each GPU once by its number, such as 0,1,2,3, or use `all`")
    return [int(name) for name in names]


def _client(settings: Settings, token: str) -> ApiClient:
    from .lease.client import ApiClient

    return ApiClient(settings.api_url, token, server_file=settings.proving_file, ca_file=settings.ca_file)


def _data_roots(settings: Settings) -> tuple[Path, ...] | None:
    """Return where data sets may be; None for anywhere: an API on this machine is taken for the same person's."""
    if settings.data_roots or settings.remote_roots:
        return settings.data_roots
    return None if is_loopback(urlsplit(settings.api_url).hostname or "") else (settings.home,)


@contextmanager
def _locked(device: Device, home: Path) -> Iterator[None]:
    """Let no other worker take this worker's share of its GPUs during the block; of a CPU there are no shares."""
    with ExitStack() as locks:
        for gpu in () if device.kind == "cpu" else device.members or (device,):
            locks.enter_context(card_locked(home / "gpus", gpu.uuid or f"gpu-{gpu.visible}", share=gpu.memory_share))
        yield


def _info(device: Device, name: str | None, nodes: int, host: str | None) -> WorkerInfo:
    from pydantic import ValidationError

    from hpo.protocol import WorkerInfo

    own = socket.gethostname()  # of a container, and of no other on its machine
    # A machine may have several CPU workers, which differ in their process; a GPU has one worker, which is not
    # named by its number: two jobs that see one GPU each both call theirs 0.
    default = f"{own}:cpu-{os.getpid()}" if device.kind == "cpu" else f"{own}:{device.short_id}"
    if device.memory_share < 1:
        default += f"-{os.getpid()}"
    try:
        return WorkerInfo(
            name=name or default,
            host=host or own,
            pid=os.getpid(),
            device=device.label,
            gpu_name=device.gpu_name,
            memory_bytes=device.usable_bytes,
            gpus=device.ranks,
            nodes=nodes,
            version=version("video-hpo"),
            start_id=secrets.token_hex(8),
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise SetupError(f"--{wrong['loc'][0]}: {wrong['msg']}") from error


def _described(device: Device) -> str:
    if device.kind == "cpu":
        return f"the CPU ({device.threads} thread{'s' if device.threads > 1 else ''})"
    precision = "bf16" if device.bf16 else "fp16" if device.fp16 else "fp32"
    return f"{device.label} ({device.gpu_name}, {(device.usable_bytes or 0) / 2**30:.0f} GiB, {precision})"
