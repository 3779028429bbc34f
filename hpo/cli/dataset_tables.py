"""The tables that `hpo data` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

from rich.table import Table

from .app import out

if TYPE_CHECKING:
    from data.scanning.report import CheckReport, Stats

_OF_IMAGES = "image_folders"
"""The layout of images alone."""
MAX_LINES = 30
"""Most problems, duplicates and different values that are listed."""


def print_check(report: CheckReport) -> None:
    """Print the report of `hpo data check`."""
    items = "images" if report.layout == _OF_IMAGES else "clips"
    item = "image" if report.layout == _OF_IMAGES else "video"
    frames = "" if report.layout == _OF_IMAGES else f"{report.n_frames} frames, "
    out.print(f"layout {report.layout}: {report.n_clips} {items}, {frames}version {report.version[:12]}")
    splits = Table("split", "fit", "validation", "test (sealed)", "problem")
    for split in report.splits:
        splits.add_row(str(split.number), str(split.fit), str(split.validation), str(split.test), split.error)
    out.print(splits)
    classes = Table("class", items, "groups")
    for name, clips in report.clips_per_class.items():
        classes.add_row(name, str(clips), str(report.groups_per_class[name]))
    out.print(classes)
    out.print("sizes: " + _counts(report.sizes))
    _print_lines([f"left out: {p.path}: {p.status}, {p.note}" for p in report.problems])
    _print_lines([f"the same {item}: " + ", ".join(ids) for ids in report.duplicates])
    notes = dict.fromkeys((*report.notes, *(note for split in report.splits for note in split.notes)))
    _print_lines([f"note: {note}" for note in notes])


def print_stats(found: Stats) -> None:
    """Print the tables of `hpo data stats`."""
    out.print(
        f"layout {found.layout}: {found.clips} clips of {found.groups} groups, {found.frames} frames, "
        f"{found.hours:.2f} h, version {found.version[:12]}"
    )
    spreads = Table("", "least", "a quarter below", "median", "a quarter above", "most")
    for name, spread in (("frames per clip", found.frames_per_clip), ("short side", found.short_side)):
        spreads.add_row(name, *(f"{value:g}" for value in astuple(spread)))
    out.print(spreads)
    for name, counts in (("size", found.sizes), ("fps", found.fps), ("kind", found.kinds), ("codec", found.codecs)):
        out.print(f"{name}: {_counts(counts)}")
    splits = sorted({number for each in found.classes for number in each.sides}, key=int)
    table = Table("class", "clips", "groups", "frames", *(f"split {number}" for number in splits))
    for each in found.classes:
        sides = (", ".join(f"{n} {side}" for side, n in each.sides.get(number, {}).items()) for number in splits)
        table.add_row(each.name, str(each.clips), str(each.groups), str(each.frames), *sides)
    out.print(table)


def print_split(class_names: Sequence[str], counts: Mapping[str, Mapping[str, int]], notes: Sequence[str]) -> None:
    """Print the number of clips of each class in each part."""
    table = Table("class", *counts)
    for name in class_names:
        table.add_row(name, *(str(counts[part].get(name, 0)) for part in counts))
    table.add_row("all", *(str(sum(part.values())) for part in counts.values()), style="bold")
    out.print(table)
    _print_lines([f"note: {note}" for note in notes])


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines[:MAX_LINES]:
        out.print(line)
    if len(lines) > MAX_LINES:
        out.print(f"... and {len(lines) - MAX_LINES} more; --json shows all")


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{value or 'unknown'} ({count})" for value, count in list(counts.items())[:MAX_LINES]]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
