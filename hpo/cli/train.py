"""`hpo train`: train an exported configuration again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SetupError
from ..trial import CUSTOM
from .app import app, err, one_sentence_errors, out, settings_of
from .exported import Cpu, File, Gpu, Threads, device_of, video_task_of
from .training_bar import training_bar

if TYPE_CHECKING:
    from workers.device.detection import Device
    from workers.retrain import TrainingResult

    from ..results.export import Export

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
    refit: Annotated[
        bool, typer.Option("--refit", help="Train on the validation videos as well, before the final test.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(help="Train for so many epochs (default: as exported).", min=1, show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Another seed (default: as exported).", min=0, max=2**31 - 1, show_default=False)
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(
            help="The function of a study of your own: MODULE:FUNCTION or FILE.py:FUNCTION.", show_default=False
        ),
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="Folder or address of the data set (default: as exported).", show_default=False)
    ] = None,
) -> None:
    """Train an exported configuration again, or run your function with it, and compare the scores.

    On the CPU of the machine that trained it, the two scores are equal to the last digit. With --epochs or --seed it is
    another training, and the scores differ.
    """
    from data import DatasetError
    from models import ModelError
    from workers.retrain import train_export

    from ..results.export import load_export

    original = load_export(file)
    is_function = original.task.kind == CUSTOM
    if is_function and (resume or refit or root is not None):
        raise SetupError(f"{file} is of a function of your own: --resume, --refit and --root are for models")
    if is_function and entry is None:
        raise SetupError(f"{file} is of a function of your own; say with --entry which it is. {original.how_again}")
    if entry is not None and not is_function:
        raise SetupError(f"{file} is of a model, which hpo train trains by itself: leave --entry out")
    exported = _changed(file, original, epochs=epochs, seed=seed, root=root)
    device = device_of(exported, gpu=gpu, cpu=cpu, threads=threads, instead="--cpu trains without one")
    folder = output or file.with_suffix(".refit" if refit else ".train")
    if refit and _is_same(folder / file.name, file):
        raise SetupError(f"the refit would overwrite {file}: give another folder with -o")
    if entry is not None:
        result = _run_function(exported, entry, device=device, folder=folder.absolute(), all_epochs=epochs is not None)
        _compare(exported, result, is_other=seed is not None or epochs is not None)
        return
    settings = settings_of(context)
    out.print(f"training trial {exported.trial} of {exported.study} on {device.label}, {device.threads} thread(s)")
    with one_sentence_errors(DatasetError, ModelError), training_bar(with_validation=not refit) as show:
        result = train_export(
            exported.config,
            exported.task,
            device=device,
            folder=folder.absolute(),
            cache_dir=settings.cache_dir,
            weights={used.source: used.sha256 for used in exported.weights},
            weights_roots=[root.expanduser().absolute() for root in weights_root or settings.weights_roots],
            stop_after=exported.epochs_done if exported.state == "stopped" and epochs is None else None,
            resume=resume,
            refit=refit,
            memory_plan=exported.environment.get("memory_plan"),
            compiled=exported.environment.get("compiled"),
            measures=_measured(exported),
            progress=show,
        )
    if refit:
        out.print(f"validation {exported.task.clip_word}s were trained on, so no validation score is shown")
        out.print(f"wrote {_refitted(file, exported, result)}: score it with `hpo evaluate FILE --final`")
    else:
        _compare(exported, result, is_other=seed is not None or epochs is not None)
    out.print(f"checkpoint: {result.checkpoint}")


def _run_function(exported: Export, entry: str, *, device: Device, folder: Path, all_epochs: bool) -> TrainingResult:
    """Run the function with the configuration of an export, and say if it is another version of it."""
    from workers.functions.entry import Entry
    from workers.process.messages import Note
    from workers.retrain import run_export

    known = exported.environment.get("entry", {})
    out.print(f"running {entry} with trial {exported.trial} of {exported.study} on {device.label}")
    result = run_export(
        exported.config,
        exported.task,
        Entry.parse(entry),
        study=exported.study,
        number=exported.trial,
        device=device,
        folder=folder,
        stop_after=exported.epochs_done if exported.state == "stopped" and not all_epochs else None,
        seed_is_searched=bool(known.get("seed_is_searched")),
        progress=lambda event: err.print(event.text) if isinstance(event, Note) else None,
    )
    if known.get("sha256") not in (None, result.environment.get("entry", {}).get("sha256")):
        out.print("the function, or a module of its folder that it imports, is another version than the trial ran")
    if result.checkpoint is not None:
        out.print(f"checkpoint: {result.checkpoint}")
    return result


def _measured(exported: Export) -> list[str]:
    """Return the metrics of the export that are measured only where somebody asks for them."""
    known = exported.task.reported_metrics
    return [name for name in exported.metrics if name in known and known[name].on_demand]


def _compare(exported: Export, result: TrainingResult, *, is_other: bool) -> None:
    from ..results.outcome import settled_metrics

    found = settled_metrics(result.metrics, result.curve, exported.last_epochs)
    for metric, value in exported.objectives.items():
        again = found[metric]
        verdict = "the same" if again == value else f"exported: {value!r}"
        if is_other:
            verdict = f"exported, of another training: {value!r}"
        out.print(f"{metric} = {again!r} ({verdict})")


def _refitted(file: Path, exported: Export, result: TrainingResult) -> Path:
    """Write an export with the new checkpoint beside that, and return its path.

    Its metrics are those before the refit.
    """
    from ..results.export import dump_export

    checkpoint = result.checkpoint
    assert checkpoint is not None  # noqa: S101 - a training of a model has one
    target = checkpoint.with_name(file.name)
    epochs_done = max(result.curve, default=0)
    document = exported.model_copy(
        update={
            "checkpoint": checkpoint.name,
            "environment": result.environment,
            "refit": True,
            "epochs_done": epochs_done,
            "state": "completed" if epochs_done >= exported.task.epochs else "stopped",
        }
    )
    target.write_text(dump_export(document, form="json" if file.suffix == ".json" else "yaml"))
    return target


def _is_same(target: Path, file: Path) -> bool:
    return target.exists() and target.samefile(file)


def _changed(file: Path, exported: Export, *, epochs: int | None, seed: int | None, root: str | None) -> Export:
    """Return an export with other epochs, another seed, or its data set in another place.

    Raises:
        SetupError: the task has no data set, or the configuration does not fit so many epochs.
    """
    from pydantic import ValidationError

    from data.specs.place import is_remote

    from ..results.export import Export

    document = exported.model_dump(mode="json")
    if epochs is not None:
        document["task"]["epochs"] = epochs
    if seed is not None:
        document["seed"] = document["config"]["seed"] = seed
    if root is not None:
        video_task_of(file, exported)
        place = root if is_remote(root) else str(Path(root).expanduser().absolute())
        document["task"]["dataset"]["root"] = place
    try:
        return Export.model_validate(document)
    except ValidationError as error:
        reasons = "; ".join(str(one["msg"]) for one in error.errors())
        raise SetupError(f"{file} cannot be trained so: {reasons}") from error
