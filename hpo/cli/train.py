"""`hpo train`: train an exported configuration again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..results.export import load_export
from ..results.outcome import settled_metrics
from .app import app, one_sentence_errors, out, settings_of
from .exported import Cpu, File, Gpu, Threads, device_of
from .training_bar import training_bar

WeightsRoot = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of weights files, perhaps several times (default: HPO_WEIGHTS_ROOTS)."),
]


@app.command()
def train(
    context: typer.Context,
    file: File,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for checkpoints (default: FILE.train).")
    ] = None,
    gpu: Gpu = None,
    cpu: Cpu = False,
    threads: Threads = None,
    weights_root: WeightsRoot = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in the folder.")] = False,
) -> None:
    """Train an exported configuration again and compare its score with the exported one.

    On the CPU of the machine that trained it, the two scores are equal to the last digit.
    """
    from data import DatasetError
    from models import ModelError
    from workers.retrain import train_export

    exported = load_export(file)
    device = device_of(exported, gpu=gpu, cpu=cpu, threads=threads)
    folder = output or file.with_suffix(".train")
    settings = settings_of(context)
    out.print(f"training trial {exported.trial} of {exported.study} on {device.label}, {device.threads} thread(s)")
    with one_sentence_errors(DatasetError, ModelError), training_bar() as show:
        result = train_export(
            exported.config,
            exported.task,
            device=device,
            folder=folder.absolute(),
            cache_dir=settings.cache_dir,
            weights={used.source: used.sha256 for used in exported.weights},
            weights_roots=[root.expanduser().absolute() for root in weights_root or settings.weights_roots],
            stop_after=exported.epochs_done if exported.state == "stopped" else None,
            resume=resume,
            memory_plan=exported.environment.get("memory_plan"),
            progress=show,
        )
    found = settled_metrics(result.metrics, result.curve, exported.last_epochs)
    for metric, value in exported.objectives.items():
        again = found[metric]
        verdict = "the same" if again == value else f"exported: {value!r}"
        out.print(f"{metric} = {again!r} ({verdict})")
    out.print(f"checkpoint: {result.checkpoint}")
