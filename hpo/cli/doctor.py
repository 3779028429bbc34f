"""`hpo doctor`: check whether this machine is ready."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import typer

from ..errors import HpoError
from ..settings import Settings
from .app import app, out, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check: whether it passed, and a sentence about it."""

    ok: bool
    about: str
    sentence: str


@app.command()
def doctor(context: typer.Context) -> None:
    """Check this machine: Python, PyTorch and its GPUs, the data directory, the service, the disk."""
    findings = [finding for check in _CHECKS for finding in check(settings_of(context))]
    for finding in findings:
        mark = "[green]ok  [/]" if finding.ok else "[red]no  [/]"
        out.print(f"{mark} {finding.about:<10} ", end="", markup=True)
        out.print(finding.sentence)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _python(_: Settings) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    yield Finding(ok=True, about="python", sentence=f"{platform.python_version()} on {cores} cores")


def _torch(_: Settings) -> Iterator[Finding]:
    import torch

    yield Finding(ok=True, about="torch", sentence=torch.__version__)
    yield from gpus()


def gpus() -> Iterator[Finding]:
    """Yield what is found about the GPUs, numbered as `hpo-worker --gpu` numbers them."""
    from workers.device.detection import has_nvidia_gpu, list_gpus

    try:
        found, problem = list_gpus()
    except HpoError as error:
        yield Finding(ok=False, about="gpu", sentence=str(error))
        return
    if problem is not None and has_nvidia_gpu():
        yield Finding(ok=False, about="gpu", sentence=problem)
    elif not found:
        yield Finding(ok=True, about="gpu", sentence="none; workers run with --cpu")
    for gpu in found:
        use = f"hpo-worker --gpu {gpu.index}" if gpu.problem is None else gpu.problem
        sentence = f"{gpu.index}: {gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB ({use})"
        yield Finding(ok=gpu.problem is None, about="gpu", sentence=sentence)


def _home(settings: Settings) -> Iterator[Finding]:
    folder = next(place for place in (settings.home, *settings.home.parents) if place.exists())
    free = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    advice = "" if writable else " is not writable: choose another with --home"
    sentence = f"{settings.home} ({free:.0f} GiB free){advice}"
    yield Finding(ok=writable, about="data dir", sentence=sentence)


def _service(settings: Settings) -> Iterator[Finding]:
    from .studies import client_of

    try:
        with client_of(settings) as client:
            health = client.health()
            client.studies()
    except HpoError as error:
        yield Finding(ok=False, about="service", sentence=str(error))
    else:
        yield Finding(ok=True, about="service", sentence=f"{settings.api_url} answers: {health['status']}")


_CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_python, _torch, _home, _service)
