"""`hpo models weights`: what a file of weights is, which models it fits, and what a model would take from it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .app import one_sentence_errors, out, settings_of
from .model_check import parsed_options
from .models import group
from .studies import AsJson

if TYPE_CHECKING:
    from models import VideoModel, WeightsFit, WeightsIdentity, WeightsReport

_NAMES_SHOWN = 8


@group.command()
def weights(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A file, or what task.base.weights takes: a name in a folder of weights, torchvision:NAME, hf:REPO.",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[str | None, typer.Option(help="Load it into this model, and say how.", show_default=False)] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="An option of the model, as NAME=VALUE; may be repeated."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Classes of the model (default: those of the file).", show_default=False)
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="Stream of a two-stream model: rgb or flow.", show_default=False)
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Channels of the model's clips (default: those of the file, else 3).", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a weights file is, before any trial uses it: its layout, network and classes, and the models it fits."""
    from models import ModelError, identify_weights
    from models.weights.digest import sha256_of

    with one_sentence_errors(ModelError):
        path = _path(context, source)
        found = identify_weights(path)
        report = None
        if model is not None:
            target = _new_model(found, model, parsed_options(options or []), classes, channels)
            report = _loaded(found, target, stream)
    digest = sha256_of(path)
    if as_json:
        typer.echo(json.dumps(_document(found, digest, report), default=str))
        return
    _print_identity(found, digest)
    if model is None:
        _print_fits(found)
    elif report is not None:
        _print_report(model, report, printed=found.notes)


def _path(context: typer.Context, source: str) -> Path:
    from models import WeightsError, find_weights

    path = Path(source).expanduser()
    if path.exists():
        return path
    if path.is_absolute():
        raise WeightsError(f"the weights file {path} does not exist")
    settings = settings_of(context)
    return find_weights(source, settings.weights_roots, downloads=settings.cache_dir / "weights")


def _new_model(
    found: WeightsIdentity, name: str, options: dict[str, Any], classes: int | None, channels: int | None
) -> VideoModel:
    """Return a model for clips and classes like those of the file, unless others are asked for."""
    from models import create_model

    fitting = (fit.in_channels for fit in found.fits if fit.model == name and fit.stream is None)
    in_channels = channels or next(fitting, 3)
    return create_model(name, num_classes=classes or found.num_classes or 1, in_channels=in_channels, **options)


def _loaded(found: WeightsIdentity, model: VideoModel, stream: str | None) -> WeightsReport:
    """Return the report of loading the file into a new model; the model is not kept."""
    from models import WeightsError, load_weights

    if stream is not None and not model.input_parts:
        raise WeightsError(f"{model.name} has one stream: leave out --stream")
    part = model.input_parts.get(stream, stream) if stream else None
    try:
        return load_weights(model, found.path, stream=part)
    except WeightsError as error:
        given = model.settings.hparams
        hints = [hint for fit in found.fits if fit.model == model.name and (hint := _hint(fit, given, stream))]
        raise WeightsError(f"{error}; it fits with {hints[0]}") if hints else error from None


def _hint(fit: WeightsFit, options: Mapping[str, Any], stream: str | None) -> str:
    """Return what was not given, of what the file needs to fit the model."""
    words = [f"-o {key}={value}" for key, value in fit.options.items() if options.get(key) != value]
    return " ".join(words + ([f"--stream {fit.input}"] if fit.input not in (None, stream) else []))


def _document(found: WeightsIdentity, digest: str, report: WeightsReport | None) -> dict[str, Any]:
    loading = {} if report is None else {"loading": asdict(report)}
    return {**asdict(found), "sha256": digest, **loading}


def _print_identity(found: WeightsIdentity, digest: str) -> None:
    classes = "" if found.num_classes is None else f", {found.num_classes} classes"
    network = f"{found.network}, " if found.network else ""
    size = f"{found.tensors} tensors, {found.parameters / 1e6:.1f} M values"
    layout = f"{found.layout} (names of the models here)" if found.layout == "as it is" else found.layout
    out.print(f"{found.path}: {network}layout: {layout}{classes}, {size}")
    out.print(f"SHA-256 {digest}")
    for note in found.notes:
        out.print(note)


def _print_fits(found: WeightsIdentity) -> None:
    if found.fits:
        _print_table(found.fits)
    elif not found.inflates:
        out.print("It fits no model as it is; `--model NAME` says what does not fit.")
        if found.of_images:
            out.print("A network of images of torchvision or timm fits `--model torchvision_frames -o backbone=NAME`,")
            out.print("or `--model timm_frames -o backbone=NAME`, which run it over frames.")
    if found.inflates:
        out.print(f"It is a network of images, whose kernels can be repeated over frames: {', '.join(found.inflates)}.")
        out.print("`--model NAME` says what these would take from it.")
    if found.left_over:
        out.print(f"not needed: {_shown(found.left_over)}")


def _print_table(fits: Sequence[WeightsFit]) -> None:
    titles = ["model", "options", "stream", "channels", "drawn anew with other classes"]
    lacking = any(fit.new for fit in fits)
    table = Table(*titles, *(["drawn anew, not in the file"] if lacking else []))
    for fit in fits:
        options = ", ".join(f"{name}={value}" for name, value in fit.options.items())
        cells = [fit.model, options, fit.input or "", str(fit.in_channels), _shown(fit.reset)]
        table.add_row(*cells, *([_shown(fit.new)] if lacking else []))
    out.print(table)


def _print_report(model: str, report: WeightsReport, *, printed: Collection[str]) -> None:
    table = Table("tensors", "number", "names", title=f"into {model}")
    for words, names in (
        ("loaded", report.loaded),
        ("of these adapted in shape", report.adapted),
        ("drawn anew, of the head", report.reset),
        ("drawn anew, not in the file", report.kept),
        ("of the file, not needed", report.dropped),
    ):
        table.add_row(words, str(len(names)), _shown(names))
    out.print(table)
    for note in report.notes:
        if note not in printed:
            out.print(note)


def _shown(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
