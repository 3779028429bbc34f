"""What the commands on an exported configuration share: their arguments, and the device that they use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import SetupError

if TYPE_CHECKING:
    from hpo.spec.tasks.video import DatasetConfig
    from workers.device.detection import Device

    from ..results.export import Export
    from ..spec import VideoTask

File = Annotated[Path, typer.Argument(help="Export file that `hpo export` wrote.", show_default=False)]
Gpu = Annotated[int | None, typer.Option("--gpu", min=0, help="Use this GPU.", show_default=False)]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use the CPU.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: as recorded).", show_default=False)]

Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        help="Score on several devices at once, such as cuda:0,cuda:1: one process for each.",
        show_default=False,
    ),
]
_ON_CPU: Final = "--cpu scores without one"
_DEVICE: Final = re.compile(r"cpu|cuda:(\d{1,4})", re.ASCII)


def devices_of(
    exported: Export, *, devices: str | None, gpu: int | None = None, cpu: bool = False, threads: int | None = None
) -> tuple[Device, ...]:
    """Return the devices of `--devices`, else the one of the other options (`device_of`).

    Raises:
        SetupError: a device is not there, or is no name of one.
    """
    if devices is None:
        return (device_of(exported, gpu=gpu, cpu=cpu, threads=threads),)
    if cpu or gpu is not None:
        raise SetupError("--devices names all devices: leave --gpu and --cpu out")
    found = []
    for name in (part.strip() for part in devices.split(",")):
        match = _DEVICE.fullmatch(name)
        if match is None:
            raise SetupError(
                f"--devices {devices}: {name!r} names no device; write cpu or cuda:NUMBER, with commas between them, "
                "such as cuda:0,cuda:1"
            )
        number = None if match[1] is None else int(match[1])
        instead = "with cpu in its place, --devices scores without it"
        found.append(device_of(exported, gpu=number, cpu=number is None, threads=threads, instead=instead))
    return tuple(found)


def device_of(
    exported: Export,
    *,
    gpu: int | None = None,
    cpu: bool = False,
    threads: int | None = None,
    instead: str = _ON_CPU,
) -> Device:
    """Return the requested device, else the kind that the trial ran on, with its number of threads.

    Args:
        instead: ends the message where there is no GPU: what to do without one.
    """
    return device_like(exported.environment, gpu=gpu, cpu=cpu, threads=threads, instead=instead)


def device_like(
    environment: Mapping[str, Any],
    *,
    gpu: int | None = None,
    cpu: bool = False,
    threads: int | None = None,
    instead: str = _ON_CPU,
) -> Device:
    """Return the requested device, else the kind that is recorded in the environment of a run (see `device_of`)."""
    from workers.device.detection import cpu_device, gpu_device

    if cpu and gpu is not None:
        raise SetupError("--gpu and --cpu are both given: choose one of them")
    threads = threads or environment.get("threads")
    if gpu is not None or (not cpu and environment.get("device") == "cuda"):
        deterministic = bool(environment.get("deterministic"))
        return gpu_device(gpu or 0, threads=threads, deterministic=deterministic, instead=instead)
    return cpu_device(threads=threads)


def video_task_of(file: Path, exported: Export) -> VideoTask:
    """Return the task of an export of a video model.

    Raises:
        SetupError: it is of another kind.
    """
    from ..spec import VideoTask

    if not isinstance(exported.task, VideoTask):
        raise SetupError(f"{file} is of a task of the kind {exported.task.kind!r}; only video models can be scored")
    return exported.task


def dataset_of(file: Path, exported: Export) -> DatasetConfig:
    """Return the data set of an export as its trial saw it: with the groups that this trial held out.

    Raises:
        SetupError: it is not of a video model.
    """
    return video_task_of(file, exported).dataset.of_trial(exported.seed)


def require_held_out(file: Path, exported: Export) -> None:
    """Check that the validation videos of an export were not trained on.

    Raises:
        SetupError: it is a refit.
    """
    if exported.refit:
        raise SetupError(
            f"{file} is a refit, which was trained on the validation videos as well: its scores on them say nothing; "
            "score it with --final, or the export that it was made from"
        )


def checkpoint_of(file: Path, exported: Export) -> Path:
    """Return the checkpoint of an export, which lies beside it.

    Raises:
        SetupError: it names none.
    """
    video_task_of(file, exported)
    if exported.checkpoint is None:
        raise SetupError(f"{file} does not name a checkpoint: make one with `hpo train {file}`")
    return file.parent / exported.checkpoint


def require_not_read(written: Iterable[Path], read: Iterable[Path]) -> None:
    """Check that no file that a command reads would be written over, whatever name or link it is written to.

    Raises:
        SetupError: one would.
    """
    kept = {path.resolve() for path in read}
    for path in written:
        if path.resolve() in kept:
            raise SetupError(f"{path} would be written over, and is read: name another file for the results")
