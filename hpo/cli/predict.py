"""`hpo predict`: the classes of videos or images that belong to no data set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args

import typer
from rich.table import Column, Table

from ..errors import HpoError, SetupError
from ..trial import IMAGE
from .app import app, err, one_sentence_errors, out
from .datasets import progress_bar
from .evaluate import Clips, Crops
from .exported import Cpu, Gpu, Threads, checkpoint_of, device_like, device_of, require_not_read, video_task_of

if TYPE_CHECKING:
    from data.flow.method import FlowMethod
    from workers.device.detection import Device
    from workers.evaluation.predict import Prediction, Predictor

_TOP: Final = 5
"""How many classes are printed and written of a video."""
_COUNTED = {"image": "images", "video": "frames"}
_CHECKPOINT_SUFFIX: Final = ".pt"
COPY_SUFFIX: Final = ".classes.mp4"
"""Of annotated copies, as `workers.evaluation.annotate` names them."""
_USUAL_SHORT_SIDE: Final = 128
"""`short_side` of a data set that does not say another."""


class FlowName(StrEnum):
    """Methods that compute flow without anything else."""

    DIS = "dis"
    FARNEBACK = "farneback"
    TVL1 = "tvl1"


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Export file, or a checkpoint of ours (.pt).", show_default=False)],
    videos: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|FOLDER...", help="Videos, images, or folders of them.", show_default=False),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")] = Path("result.json"),
    timeline: Annotated[bool, typer.Option("--timeline", help="Say which class is seen when.")] = False,
    window: Annotated[
        float | None,
        typer.Option(help="Seconds of a window of the time line (default: a clip's length).", min=0.01),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option("--video", help="Folder for copies of the videos with their classes on them.", show_default=False),
    ] = None,
    clips: Clips = 10,
    crops: Crops = 1,
    short_side: Annotated[
        int | None,
        typer.Option(help="Short side in pixels to which frames are scaled (default: as exported).", min=16),
    ] = None,
    flow: Annotated[
        FlowName | None,
        typer.Option(
            "--flow",
            help="How the optical flow is computed that a model sees (default: as where it was trained).",
            show_default=False,
        ),
    ] = None,
    gpu: Gpu = None,
    cpu: Cpu = False,
    threads: Threads = None,
) -> None:
    """Predict the classes of videos, in bounded memory however long they are, or of images."""
    _require_writable(output)
    of_images = _is_of_images(model)
    if of_images and (timeline or video is not None):
        raise SetupError(f"{model} is a model of images, which have no time line: leave --timeline and --video out")
    paths = _found(videos, of_images=of_images)
    names = _copy_names(paths)
    written = [output] if video is None else [output, *(video / f"{name}{COPY_SUFFIX}" for name in names)]
    require_not_read(written, [model, model.with_suffix(_CHECKPOINT_SUFFIX), *paths])
    source = _source(model, gpu=gpu, cpu=cpu, threads=threads)
    if flow is not None:
        source = replace(source, flow=flow.value)
    views = (1 if of_images else clips, crops)
    predictor = _predictor(source, short_side=short_side, views=views, window=window, of_images=of_images)
    entries: list[dict[str, Any]] = []
    document = {"model": str(model), "classes": list(predictor.model.class_names), "files": len(paths)}
    try:
        for path, name in zip(paths, names, strict=True):
            copy = None if video is None else (video, name)
            entries.append(_predicted(path, predictor, timeline=timeline, copy=copy))
    finally:
        # What was predicted until Ctrl-C or a lost GPU may have taken hours.
        if entries:
            _write(output, json.dumps({**document, "results": entries}, indent=1, ensure_ascii=False) + "\n")
        if len(entries) < len(paths):
            err.print(f"{len(entries)} of {len(paths)} files were predicted{f'; wrote {output}' if entries else ''}")
    word = "image" if of_images else "video"
    _print_results(entries, word)
    out.print(f"wrote {output}")
    failed = [str(entry["error"]) for entry in entries if "error" in entry]
    if failed:
        raise HpoError(f"{len(failed)} of {len(paths)} {word}s could not be predicted: {'; '.join(failed[:5])}")
    uncopied = [str(entry["copy_error"]) for entry in entries if "copy_error" in entry]
    if uncopied:
        raise HpoError(f"all videos were predicted, but {len(uncopied)} could not be copied: {'; '.join(uncopied[:5])}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where the model comes from, and how its frames were prepared."""

    checkpoint: Path
    device: Device
    short_side: int
    most_frames: int | None
    flow: str = "none"
    """How the flow of its data set was made."""
    flow_weights: Path | None = None


def _source(model: Path, *, gpu: int | None, cpu: bool, threads: int | None) -> _Source:
    from ..results.export import load_export

    if model.suffix == _CHECKPOINT_SUFFIX:
        device = device_like({}, gpu=gpu, cpu=cpu, threads=threads)
        err.print(f"a checkpoint alone does not say how frames were prepared: short side {_USUAL_SHORT_SIDE} is taken")
        return _Source(checkpoint=model, device=device, short_side=_USUAL_SHORT_SIDE, most_frames=None)
    exported = load_export(model)
    dataset = video_task_of(model, exported).dataset
    return _Source(
        checkpoint=checkpoint_of(model, exported),
        device=device_of(exported, gpu=gpu, cpu=cpu, threads=threads),
        short_side=dataset.short_side,
        most_frames=dataset.most_frames,
        flow=dataset.flow,
        flow_weights=None if dataset.flow_weights is None else Path(dataset.flow_weights).expanduser(),
    )


def _is_of_images(model: Path) -> bool:
    """Return whether an export is of a model of images; a checkpoint alone does not say that."""
    from ..results.export import load_export

    return model.suffix != _CHECKPOINT_SUFFIX and load_export(model).task.kind == IMAGE


def _predictor(
    source: _Source, *, short_side: int | None, views: tuple[int, int], window: float | None, of_images: bool
) -> Predictor:
    from data import DatasetError
    from models import ModelError
    from workers.evaluation.model import TrainedModel
    from workers.evaluation.predict import Predictor
    from workers.evaluation.sealed_test import Views
    from workers.training.inputs import clip_spec

    with one_sentence_errors(DatasetError, ModelError):
        model = TrainedModel.open(source.checkpoint, source.device)
        return Predictor.of(
            model,
            short_side=short_side or source.short_side,
            views=Views(clips=views[0], crops=views[1]),
            window_seconds=window,
            most_frames=source.most_frames,
            flow=_flow_of(source) if "flow" in clip_spec(model.config).inputs else None,
            of_images=of_images,
        )


def _flow_of(source: _Source) -> FlowMethod | None:
    """Return the method that computed the flow of the training; None where the flow came with the data set."""
    from data.flow.compute import ComputedFlow, flow_method

    if source.flow not in get_args(ComputedFlow):
        return None
    return flow_method(cast("ComputedFlow", source.flow), weights=source.flow_weights)


def _found(given: Sequence[Path], *, of_images: bool) -> list[Path]:
    """Return the videos (or images) that are given, and those in folders in the order of their names.

    Raises:
        SetupError: a folder has none, or there is no such file.
    """
    from data.importers.image_folders import SUFFIXES
    from data.index.listing import VIDEO_SUFFIXES

    word, suffixes = ("images", SUFFIXES) if of_images else ("videos", VIDEO_SUFFIXES)
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            videos = sorted(file for file in path.rglob("*") if _is_of(file, suffixes))
            inside = [file for file in videos if not file.name.endswith(COPY_SUFFIX)]
            if len(inside) < len(videos):
                err.print(f"{path}: {len(videos) - len(inside)} annotated copies of --video are left out")
            if not inside:
                raise SetupError(f"{path} has no {word} ({', '.join(sorted(suffixes))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise SetupError(f"there is no file {path}")
    return found


def _is_of(path: Path, suffixes: Collection[str]) -> bool:
    return path.suffix.lower() in suffixes and not path.is_dir()


def _require_writable(output: Path) -> None:
    """Check it before the predictions, which may take hours; a file that is there keeps its content.

    Raises:
        SetupError: it cannot be written.
    """
    try:
        is_new = not output.exists()
        if is_new or output.is_file() or output.is_dir():  # and not a pipe, whose reader would take this for its end
            output.open("ab").close()
        if is_new:
            output.unlink()
    except OSError as error:
        raise SetupError(
            f"{output} cannot be written ({error.strerror}): name a file in a folder that exists"
        ) from error


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{output} cannot be written ({error.strerror})") from error


def _copy_names(paths: Sequence[Path]) -> list[str]:
    """Return a name of its own for the copy of each video: NAME, and NAME-2 where that is taken."""
    names: dict[str, None] = {}
    for path in paths:
        numbered = (f"{path.stem}-{number}" for number in count(2))
        names[next(name for name in chain((path.stem,), numbered) if name not in names)] = None
    return list(names)


def _predicted(path: Path, predictor: Predictor, *, timeline: bool, copy: tuple[Path, str] | None) -> dict[str, Any]:
    """Return the entry of one video; with an `error` where it cannot be decoded.

    Args:
        copy: folder and name of the annotated copy; where it cannot be written, the entry has a `copy_error`.
    """
    from data import DatasetError
    from workers.evaluation.annotate import write_annotated

    try:
        with progress_bar() as bar:
            found = predictor.predict(
                path, timeline=timeline or copy is not None, progress=_on(bar, f"{path.name}, frames")
            )
            entry = {**_named(path, predictor), **_entry(found, predictor.model.class_names)}
    except DatasetError as error:
        return {**_named(path, predictor), "error": str(error)}
    if copy is not None:
        folder, name = copy
        try:
            with progress_bar() as bar:
                written = write_annotated(found, folder, name=name, progress=_on(bar, f"{path.name}, copy"))
                entry["copy"] = str(written)
        except DatasetError as error:
            entry["copy_error"] = str(error)
    return entry


def _named(path: Path, predictor: Predictor) -> dict[str, str]:
    """Return the name of what is predicted; an image is also a `video`, as it was before models of images."""
    return {"video": str(path), **({"image": str(path)} if predictor.of_images else {})}


def _entry(found: Prediction, names: Sequence[str]) -> dict[str, Any]:
    best = found.scores.argsort()[::-1][:_TOP]
    entry: dict[str, Any] = {
        "class": names[int(best[0])],
        "score": round(float(found.scores[best[0]]), 6),
        "top": [{"class": names[int(place)], "score": round(float(found.scores[place]), 6)} for place in best],
        "frames": found.frames,
        "seconds": round(found.seconds, 3),
        "took_seconds": round(found.took_seconds, 3),
    }
    if found.timeline:
        entry["timeline"] = [
            {
                "start": round(part.start, 3),
                "end": round(part.end, 3),
                "class": part.label,
                "score": round(part.score, 6),
            }
            for part in found.timeline
        ]
    return entry


def _print_results(entries: Sequence[dict[str, Any]], word: str) -> None:
    table = Table(word, "class", Column("score", justify="right"), "then", Column("speed", justify="right"))
    shown = _shown_names([entry["video"] for entry in entries])
    for entry in entries:
        if "error" in entry:
            table.add_row(shown[entry["video"]], "-", "-", "cannot be predicted", "-")
            continue
        others = ", ".join(f"{one['class']} {one['score']:.3f}" for one in entry["top"][1:3])
        took = max(entry["took_seconds"], 1e-3)
        speed = f"{entry['frames'] / took:.0f} {_COUNTED[word]}/s"
        if entry["frames"] > 1:
            speed += f", {entry['seconds'] / took:.1f} x real time"
        table.add_row(shown[entry["video"]], entry["class"], f"{entry['score']:.3f}", others, speed)
    out.print(table)
    for entry in entries:
        for part in entry.get("timeline", ()):
            when = f"{_clock(part['start'])} to {_clock(part['end'])}"
            out.print(f"{shown[entry['video']]}  {when}  {part['class']} ({part['score']:.3f})")


def _shown_names(videos: Sequence[str]) -> dict[str, str]:
    """Return what stands for each video in a table: its name, or its path where another has that name too."""
    names = Counter(Path(video).name for video in set(videos))
    return {video: Path(video).name if names[Path(video).name] == 1 else video for video in videos}


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes):d}:{rest:04.1f}"


def _on(bar: Callable[[str, int, int], None], stage: str) -> Callable[[int, int], None]:
    return lambda done, total: bar(stage, done, total)
