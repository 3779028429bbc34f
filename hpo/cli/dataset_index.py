"""`hpo data scan | check | stats | split | export`: inspect a data set without preparing it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import HpoError
from .app import one_sentence_errors, out, settings_of
from .dataset_tables import print_check, print_split, print_stats
from .datasets import GroupPattern, Name, Root, group, local_root, progress_bar

if TYPE_CHECKING:
    from data.index.listing import Listing
    from data.index.records import Index
    from data.index.splits import Split

RootOrIndex = Annotated[
    str,
    typer.Argument(help="Folder or address of the data set, or the index.json of a scan.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.", show_default=False)]


def _scanned(
    context: typer.Context, root: str, name: str, group_pattern: str | None, *, every_byte: bool = False
) -> Index:
    """Return the index of a scan, with a progress bar; results are cached, also for `prepare` and for workers."""
    from data import DatasetError
    from data.scanning.scan import scan_into

    cache_dir, folder = settings_of(context).cache_dir, local_root(context, root)
    with one_sentence_errors(DatasetError), progress_bar() as bar:
        return scan_into(cache_dir, folder, name=name, group_pattern=group_pattern, progress=bar, every_byte=every_byte)


def _known(
    context: typer.Context, root: str, name: str, group_pattern: str | None, *, every_byte: bool = False
) -> Index:
    """Return the index that `scan` wrote, or that of a folder after scanning it."""
    from data import DatasetError
    from data.index.file import read_index

    if not Path(root).is_file():
        return _scanned(context, root, name, group_pattern, every_byte=every_byte)
    with one_sentence_errors(DatasetError):
        return read_index(Path(root))


@group.command()
def scan(
    context: typer.Context, root: Root, name: Name = "auto", group_pattern: GroupPattern = None, output: Output = None
) -> None:
    """Decode every clip once and write the index: index.json, labels.json, meta.json. Resumes after being killed."""
    from data import DatasetError
    from data.scanning.scan import write_scan

    index = _scanned(context, root, name, group_pattern)
    folder = output or settings_of(context).cache_dir / f"index-{index.name}-{index.hash[:12]}"
    with one_sentence_errors(DatasetError):
        write_scan(index, folder)
    statuses = ", ".join(f"{count} {status}" for status, count in index.status_counts().items())
    out.print(f"layout {index.name}, {len(index.class_names)} classes, {len(index.clips)} clips ({statuses})")
    out.print(f"version {index.hash[:12]}, written to {folder}")


@group.command()
def check(
    context: typer.Context,
    root: RootOrIndex,
    name: Name = "auto",
    group_pattern: GroupPattern = None,
    as_json: AsJson = False,
) -> None:
    """Decode every clip once and report its content and all problems; exits with 1 if there are any.

    Every byte of a folder is read each time, to notice damage that left sizes and times as they were.
    """
    from data.scanning.report import check as check_index

    report = check_index(_known(context, root, name, group_pattern, every_byte=True))
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        print_check(report)
    raise typer.Exit(0 if report.sound else 1)


@group.command()
def stats(
    context: typer.Context,
    root: RootOrIndex,
    name: Name = "auto",
    group_pattern: GroupPattern = None,
    as_json: AsJson = False,
) -> None:
    """Show the content of a data set: classes, groups, lengths, sizes, frame rates, codecs."""
    from data.scanning.report import stats as count_stats

    found = count_stats(_known(context, root, name, group_pattern))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        print_stats(found)


@group.command()
def split(
    context: typer.Context,
    root: Root,
    *,
    name: Name = "auto",
    number: Annotated[int, typer.Option("--split", help="Official split.", min=1)] = 1,
    validation: Annotated[str, typer.Option(help="groups, kfold, official or random.")] = "groups",
    held_out: Annotated[str, typer.Option(help="Groups of each class that are held out: 1of6 is one of six.")] = "1of6",
    seed: Annotated[
        int | None, typer.Option(help="Hold out groups drawn at random instead of the last ones.", show_default=False)
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of kfold.", min=2)] = 5,
    fold: Annotated[int, typer.Option(help="The fold used for validation.", min=1)] = 1,
    group_pattern: GroupPattern = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show which clips are for fitting, for validation, and sealed, from the lists alone; --output writes their ids."""
    from data import DatasetError
    from data.index.splits import make_split
    from data.scanning.scan import read_listing
    from data.specs import SplitSpec

    folder = local_root(context, root)
    with one_sentence_errors(DatasetError):
        chosen = {"split": number, "validation": validation, "held_out": held_out}
        dealt = {"folds": folds, "fold": fold}
        spec = SplitSpec(**chosen, split_seed=seed, **dealt)  # type: ignore[arg-type]  # the spec refuses unknown values
        layout, listing = read_listing(folder, name, group_pattern)
        parts = make_split(sorted(listing.clips, key=lambda clip: clip.id), spec)
    content = {"layout": layout, "root": root, **chosen, "seed": seed, **dealt, **_lists(parts)}
    if output is not None:
        _write(output, content)
    if as_json:
        typer.echo(json.dumps(content))
    else:
        _print_split(listing, parts)


@group.command()
def export(
    context: typer.Context,
    root: Root,
    folder: Annotated[Path, typer.Argument(help="Folder to write into.", show_default=False)],
    *,
    to: Annotated[
        str, typer.Option(help="ucf101, annot_json, frame_lists, path_lists, webdataset, videofolder or parquet.")
    ],
    name: Name = "auto",
    number: Annotated[
        int,
        typer.Option(
            "--split", help="Official split, for layouts that hold one: all but ucf101, annot_json, path_lists.", min=1
        ),
    ] = 1,
) -> None:
    """Write a data set in another tool's layout, under names without special characters.

    Clips are linked; shards of webdataset and tables of parquet hold their bytes.
    """
    from data import DatasetError
    from data.export.lists import export as write

    index = _scanned(context, root, name, None)
    with one_sentence_errors(DatasetError):
        written = write(index, local_root(context, root), folder, to, split=number)  # type: ignore[arg-type]  # `write` refuses unknown values
    out.print(f"{written.clips} clips of {len(index.clips)} written to {folder}, {len(written.lists)} lists")
    for note in written.notes:
        out.print(f"note: {note}")


def _print_split(listing: Listing, parts: Split) -> None:
    classes = {clip.id: clip.class_name for clip in listing.clips}
    counts = {part: Counter(classes[id_] for id_ in ids) for part, ids in _parts(parts).items()}
    print_split(listing.class_names, counts, (*listing.notes, *parts.notes))


def _parts(parts: Split) -> dict[str, tuple[str, ...]]:
    return {"fit": parts.fit, "validation": parts.validation, "test": parts.test}


def _lists(parts: Split) -> dict[str, object]:
    return {**{part: list(ids) for part, ids in _parts(parts).items()}, "notes": list(parts.notes)}


def _write(path: Path, content: dict[str, object]) -> None:
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise HpoError(f"{path} cannot be written ({error.strerror}): choose another --output") from error
