"""`hpo train` and `hpo evaluate`: train an exported configuration again, or score it on the sealed test list."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SetupError
from ..results.export import Export, load_export
from ..results.outcome import settled_metrics
from ..settings import Settings
from ..spec import VideoTask
from .app import app, err, one_sentence_errors, out, settings_of
from .datasets import progress_bar
from .training_bar import training_bar

if TYPE_CHECKING:
    from workers.device.detection import Device

File = Annotated[Path, typer.Argument(help="Export file that `hpo export` wrote.", show_default=False)]
Gpu = Annotated[int | None, typer.Option("--gpu", min=0, help="Use this GPU.", show_default=False)]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use the CPU.")]
WeightsRoot = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of weights files, perhaps several times (default: HPO_WEIGHTS_ROOTS)."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: as recorded).", show_default=False)]


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
    device = _device(exported, gpu=gpu, cpu=cpu, threads=threads)
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


@app.command()
def evaluate(
    context: typer.Context,
    file: File,
    *,
    final: Annotated[bool, typer.Option("--final", help="Open the sealed test list.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Score it again although it was scored before.")] = False,
    clips: Annotated[int, typer.Option(help="Clips per video, evenly spaced.", min=1)] = 10,
    crops: Annotated[int, typer.Option(help="Crops of each clip: 1, 3, 5 or 10 (see docs/clips.md).")] = 1,
    gpu: Gpu = None,
    cpu: Cpu = False,
    threads: Threads = None,
) -> None:
    """Score an exported checkpoint on the test list, which no trial of the study has seen."""
    if not final:
        raise SetupError(
            "the test list is sealed for the final evaluation of one configuration: add --final to open it "
            "(`hpo export` shows the validation score)"
        )
    exported = load_export(file)
    device = _device(exported, gpu=gpu, cpu=cpu, threads=threads)
    print_evaluation(file, settings_of(context), device=device, views=(clips, crops), again=again)


def print_evaluation(
    file: Path,
    settings: Settings,
    *,
    device: Device | None = None,
    views: tuple[int, int] = (10, 1),
    again: bool = False,
) -> None:
    """Score the checkpoint of an export on the sealed test list, once, and keep the score beside the file.

    `views` are the number of clips per video and of crops per clip.

    Raises:
        HpoError: the checkpoint or the data set cannot be used.
    """
    record, exported = file.with_suffix(".final.json"), load_export(file)
    score = json.loads(record.read_text()) if record.exists() else {}
    # Another trial may have been exported to the same file since.
    if not again and (score.get("study"), score.get("trial")) == (exported.study, exported.trial):
        out.print(f"The test list was opened on {score['at']}; score it once more with --again.")
    else:
        score = _score(file, exported, settings, device=device, views=views)
        record.write_text(json.dumps(score, indent=2) + "\n")
    low, high = score["interval"]
    out.print(
        f"Test        top-1 {score['top1']:.3f} (95 % interval {low:.3f} to {high:.3f}) on {score['videos']} sealed "
        f"videos, {score['clips']} clips x {score.get('crops', 1)} crops each; chance is {score['chance']:.3f}"
    )
    if not score["same_dataset"]:
        err.print("the data set differs from the one used for training: files were added, changed or removed since")


def _score(
    file: Path, exported: Export, settings: Settings, *, device: Device | None, views: tuple[int, int]
) -> dict[str, Any]:
    from data import DatasetError
    from models import ModelError
    from workers.evaluation.sealed_test import evaluate_final

    if exported.checkpoint is None:
        raise SetupError(f"{file} does not name a checkpoint: make one with `hpo train {file}`")
    if not isinstance(exported.task, VideoTask):
        raise SetupError(f"{file} is of a task of the kind {exported.task.kind!r}; only video models can be scored")
    with one_sentence_errors(DatasetError, ModelError), progress_bar() as bar:
        score = evaluate_final(
            file.parent / exported.checkpoint,
            exported.task.dataset,
            cache_dir=settings.cache_dir,
            device=device or _device(exported),
            reason=f"final evaluation of trial {exported.trial} of study {exported.study}",
            clips=views[0],
            crops=views[1],
            progress=_on(bar, "test videos"),
        )
    which = {"study": exported.study, "trial": exported.trial}
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), **which, **asdict(score)}


def _on(bar: Callable[[str, int, int], None], stage: str) -> Callable[[int, int], None]:
    return lambda done, total: bar(stage, done, total)


def _device(exported: Export, *, gpu: int | None = None, cpu: bool = False, threads: int | None = None) -> Device:
    """Return the requested device, else the kind that the trial ran on, with its number of threads."""
    from workers.device.detection import cpu_device, gpu_device

    if cpu and gpu is not None:
        raise SetupError("--gpu and --cpu are both given: choose one of them")
    threads = threads or exported.environment.get("threads")
    if gpu is not None or (not cpu and exported.environment.get("device") == "cuda"):
        return gpu_device(gpu or 0, threads=threads, deterministic=bool(exported.environment.get("deterministic")))
    return cpu_device(threads=threads)
