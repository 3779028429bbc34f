"""`hpo data prepare`, `bench` and `extract`: write frames and flow for our trials, and for other tools."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .app import one_sentence_errors, out, settings_of
from .datasets import GroupPattern, Name, Report, Root, group, local_root, progress_bar

if TYPE_CHECKING:
    from data import DatasetSpec, Index
    from data.preparation.bench import DecoderSpeed
    from data.preparation.choice import Estimate

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ShortSide = Annotated[int, typer.Option(help="Pixels of the shorter side; smaller videos keep their size.", min=16)]
Flow = Annotated[str, typer.Option(help="Optical flow: none, listed, dis, farneback, tvl1 or raft.")]
FlowWeights = Annotated[
    Path | None, typer.Option(help="File of torchvision's weights of RAFT.", show_default=False, dir_okay=False)
]


@group.command()
def prepare(
    context: typer.Context,
    root: Root,
    *,
    name: Name = "auto",
    group_pattern: GroupPattern = None,
    short_side: ShortSide = 128,
    store: Annotated[str, typer.Option(help="Form: auto, raw, i420, jpeg, tinyvideo or lmdb.")] = "auto",
    frames: Annotated[str, typer.Option(help="all, or uniform:N for N frames of each clip.")] = "all",
    flow: Flow = "none",
    flow_weights: FlowWeights = None,
    decoder: Annotated[str, typer.Option(help="What decodes videos: pyav or torchcodec.")] = "pyav",
    estimate: Annotated[bool, typer.Option("--estimate", help="Print size and time, and stop.")] = False,
) -> None:
    """Decode all clips into the cache that all trials share; otherwise the first worker does it.

    Killed at any moment and started again, it continues where it was.
    """
    from data import DatasetError
    from data.preparation.prepare import estimates
    from data.preparation.prepare import prepare as build

    cache_dir = settings_of(context).cache_dir
    with one_sentence_errors(DatasetError):
        spec = _spec(
            name=name,
            root=local_root(context, root),
            group_pattern=group_pattern,
            short_side=short_side,
            store=store,
            frames_kept=frames,
            decoder=None if decoder == "pyav" else decoder,
            flow=flow,
            flow_weights=flow_weights,
        )
        with progress_bar() as bar:
            index = _scanned(spec, cache_dir, bar)
        _print_problems(index)
        for stream, found in estimates(index, spec, cache_dir).items():
            out.print(f"{stream}: {_described(found)}")
        if estimate:
            return
        with progress_bar() as bar:
            stores = build(index, spec, cache_dir, progress=bar)
    for stream, prepared in stores.items():
        form, folder = prepared.manifest.form, prepared.folder
        out.print(f"{stream}: {len(prepared)} clips prepared as {form} in {folder}")


@group.command()
def bench(
    context: typer.Context,
    root: Root,
    *,
    name: Name = "auto",
    short_side: ShortSide = 128,
    clip_frames: Annotated[int, typer.Option(help="Frames of a clip.", min=1)] = 32,
    clip_stride: Annotated[int, typer.Option(help="Step from one of its frames to the next.", min=1)] = 2,
    seconds: Annotated[float, typer.Option(help="How long each form is read.", min=0.0, max=600.0)] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Try each form of the cache with a few clips, and say which suits this machine and data set."""
    from data import ClipSpec, DatasetError
    from data.preparation.bench import advice, measure_decoders, measure_forms

    cache_dir = settings_of(context).cache_dir
    with one_sentence_errors(DatasetError):
        spec = _spec(name=name, root=local_root(context, root), short_side=short_side)
        with progress_bar() as bar:
            index = _scanned(spec, cache_dir, bar)
        clip = ClipSpec(frames=clip_frames, stride=clip_stride)
        found = list(measure_forms(index, spec, clip, cache_dir, seconds=seconds))
        decoders = list(measure_decoders(index, spec, seconds=seconds))
        chosen = advice(index, spec, cache_dir)
    if as_json:
        forms, speeds = [asdict(each) for each in found], [asdict(each) for each in decoders]
        typer.echo(json.dumps({"forms": forms, "decoders": speeds, "auto": asdict(chosen)}))
        return
    table = Table("store", "clips/s of one thread", "GB", "")
    for each in found:
        remark = "auto" if each.form == chosen.form else "" if each.fits else "does not fit"
        table.add_row(each.form, f"{each.clips_per_second:,.1f}", f"{each.bytes / 1e9:,.3g}", remark)
    out.print(table)
    out.print(f"auto takes {chosen.form}: {chosen.why}")
    for decoder in decoders:
        out.print(f"{decoder.decoder}: {_speed_of(decoder)}")


@group.command()
def extract(
    context: typer.Context,
    root: Root,
    folder: Annotated[Path, typer.Argument(help="Folder to fill.", show_default=False)],
    *,
    name: Name = "auto",
    group_pattern: GroupPattern = None,
    short_side: ShortSide = 256,
    flow: Flow = "none",
    flow_weights: FlowWeights = None,
    naming: Annotated[str, typer.Option(help="Naming scheme of the files: tsn, annot_json or ibm.")] = "tsn",
) -> None:
    """Write every clip as JPEG images, and its flow beside them, under the names that other tools read.

    Killed at any moment and started again, it continues where it was.
    """
    from data import DatasetError
    from data.export.frames import extract as write

    copied = local_root(context, root)
    with one_sentence_errors(DatasetError), progress_bar() as bar:
        spec = _spec(
            name=name,
            root=copied,
            group_pattern=group_pattern,
            short_side=short_side,
            flow=flow,
            flow_weights=flow_weights,
        )
        index = _scanned(spec, settings_of(context).cache_dir, bar)
        count = write(index, spec, folder.expanduser(), naming=naming, progress=bar)
    _print_problems(index)
    out.print(f"{count} clips are in {folder}")


def _speed_of(decoder: DecoderSpeed) -> str:
    if decoder.frames_per_second is None:
        return decoder.fault
    left = f", of which {decoder.left_to_pyav} are left to PyAV" if decoder.left_to_pyav else ""
    return f"{decoder.frames_per_second:,.0f} frames/s decoded by one thread, from {decoder.videos} videos{left}"


def _spec(**given: Any) -> DatasetSpec:
    from data import DatasetSpec

    return DatasetSpec(**given)


def _scanned(spec: DatasetSpec, cache_dir: Path, progress: Report) -> Index:
    from data.scanning.scan import scan_into

    root = Path(spec.root).expanduser()
    return scan_into(cache_dir, root, name=spec.name, group_pattern=spec.group_pattern, progress=progress)


def _print_problems(index: Index) -> None:
    for problem in index.problems():
        out.print(f"left out: {problem.path} ({problem.note})")


def _described(found: Estimate | None) -> str:
    if found is None:
        return "already prepared"
    size = f"{found.bytes / 1e9:.2f} GB" if found.bytes >= 1e7 else f"{found.bytes / 1e6:.2f} MB"
    parts = [
        f"{found.n_frames} frames of {found.n_clips} clips",
        f"{'' if found.exact else 'about '}{size} as {found.form}",
    ]
    if found.seconds is not None:
        minutes = found.seconds / 60
        parts.append(f"about {minutes:.0f} min" if minutes >= 1 else "less than a minute")
    return ", ".join(parts) + (f" ({found.why})" if found.why else "")
