"""Samples of data sets as they are published: sides in the names of files, labels as numbers or names, groups.

`train-000001.tar`, `data/validation-00000-of-00002.parquet` and `test/metadata.csv` are each on the side that their
name says, else on that of the nearest folder. Where no name says any, all samples train.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import DatasetFormatError, quoted
from ..index.groups import source_group
from ..index.label_maps import find_class_list, first_number, read_class_list
from ..index.listing import Listing, folders_below, names_in, official_sides, suffix_of
from ..index.records import ListedClip

_SIDES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_BY_NAME = {name: side for side, names in _SIDES.items() for name in names}
_NUMBERED = re.compile(r"(?P<name>.*?)(?P<number>\d+)(?:-of-(?P<count>\d+)(?:-[0-9a-f]{16})?)?", re.DOTALL)
_WORD = re.compile(r"[a-z]+")
_HIGHEST_UNNAMED = 100_000
LABELS = ("label", "class_name", "class", "label_name", "category", "action", "cls", "labels")
"""Names that hold a sample's class, the first in this order counts."""
GROUPS = ("group", "source", "youtube_id")
"""Names that hold what a sample was cut from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A video and its label, as a shard or a table has them."""

    id: str
    path: str
    """Below the root."""
    member: str = ""
    label: int | str | None
    """None where there is none."""
    class_name: str = ""
    """Name of the class, where a number is the label."""
    group: str = ""
    stem: str
    """Name of the video without folder and suffix, in which its source may be."""
    side: str
    """`train`, `validation` or `test`; empty where no name says it."""
    where: str
    """Place, for messages."""
    problem: str = ""
    """Why the video cannot be used, whatever is in its file."""


def files_of(root: Path, suffix: str) -> list[Path]:
    """Return the files with a suffix in `folders_of(root)`, in order."""
    return [
        folder / name
        for folder in folders_of(root)
        for name in sorted(names_in(folder))
        if suffix_of(name) == suffix and not name.startswith(".")
    ]


def folders_of(root: Path) -> list[Path]:
    """Return the root, the folders in it, and those in its folder `data`: what is published is not deeper."""
    found = [root, *folders_below(root, depth=1)]
    return found + [folder for each in found[1:] if each.name == "data" for folder in folders_below(each, depth=1)]


def side_of(path: Path, root: Path) -> str:
    """Return the side that the name of a file says, or that of the nearest folder; empty if none says one.

    Raises:
        DatasetFormatError: one name says two.
    """
    for name in reversed(PurePosixPath(path.relative_to(root)).parts):
        sides = {_BY_NAME[word] for word in _WORD.findall(name.lower()) if word in _BY_NAME}
        if len(sides) > 1:
            raise DatasetFormatError(f"{path} names two sides, {' and '.join(sorted(sides))}: leave one in its name")
        if sides:
            return sides.pop()
    return ""


def missing_notes(paths: Iterable[Path], root: Path) -> list[str]:
    """Return a note for each series of numbered shards or tables that has a gap, or fewer than its names say."""
    series: dict[tuple[Path, str, str], set[str]] = {}
    for path in paths:
        found = _NUMBERED.fullmatch(path.stem)
        if found is not None:
            series.setdefault((path.parent, found["name"], found["count"] or ""), set()).add(found["number"])
    notes = []
    for (folder, name, count), texts in series.items():
        if not count and not any(text.startswith("0") for text in texts):
            continue  # dates, for example
        numbers = {int(text) for text in texts}
        expected = int(count) if count else max(numbers) - min(numbers) + 1
        if len(numbers) < expected:
            place = (folder / f"{name}*").relative_to(root).as_posix()
            lost = expected - len(numbers)
            notes.append(f"{lost} of {expected} numbered files {place} are not there: their samples are missing")
    return notes


def label_in(values: Mapping[str, object], where: str) -> tuple[int | str | None, str]:
    """Return the label that a sample's metadata have, and the name of its class beside a number.

    Raises:
        DatasetFormatError: the label is neither a number nor a name.
    """
    found = [name for name in LABELS if values.get(name) not in (None, "", [])]
    if not found:
        return None, ""
    label = values[found[0]]
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise DatasetFormatError(
            f"{where}: {found[0]} is {quoted(label)}: it must be one number or name, a sample has one label"
        )
    names = [values[name] for name in ("class_name", "label_name", "class") if isinstance(values.get(name), str)]
    return label, str(names[0]) if names and isinstance(label, int) else ""


def group_in(values: Mapping[str, object]) -> str:
    """Return the group that a sample's metadata have, or nothing."""
    return next((str(values[name]) for name in GROUPS if values.get(name) not in (None, "")), "")


def listing_of_samples(
    root: Path, samples: Sequence[Sample], *, class_names: Sequence[str] = (), notes: Iterable[str] = ()
) -> Listing:
    """Return the listing of samples, with labels counted from 0.

    Args:
        class_names: names of the labels, if the data set holds them; else a class list in the root counts.

    Raises:
        DatasetFormatError: a sample lacks its label or side, or labels contradict each other; the message names it.
    """
    labelled = list(_labelled(samples))
    if not labelled:
        raise DatasetFormatError(f"{samples[0].where} has no label, nor has any other sample: add them")
    _require_sides(labelled)
    sides, remarks = official_sides({sample.side or "train" for sample in labelled})
    if len(labelled) < len(samples):
        remarks += (f"{len(samples) - len(labelled)} samples have no label and are left out",)
    names, first, remark = _classes(root, labelled, class_names)
    numbers = {name: number for number, name in enumerate(names)}
    clips: dict[str, ListedClip] = {}
    problems = {}
    for sample in labelled:
        label = numbers[sample.label] if isinstance(sample.label, str) else int(sample.label or 0) - first
        if sample.id in clips:
            raise DatasetFormatError(f"{sample.where}: there are two samples {quoted(sample.id)}; leave one of them")
        clips[sample.id] = ListedClip(
            id=sample.id,
            path=sample.path,
            member=sample.member,
            label=label,
            class_name=names[label],
            group=sample.group or source_group(names[label], sample.stem) or sample.id,
            official=((1, sides[sample.side or "train"]),),
        )
        if sample.problem:
            problems[sample.id] = sample.problem
    all_notes = (*notes, *remarks, *remark)
    return Listing(class_names=tuple(names), clips=tuple(clips.values()), notes=all_notes, problems=problems)


def _labelled(samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the samples of all sides that have labels."""
    with_labels = {sample.side for sample in samples if sample.label is not None}
    for sample in samples:
        if sample.side not in with_labels:
            continue  # a published test list
        if sample.label is None:
            raise DatasetFormatError(f"{sample.where} has no label, and others have: add it, or remove the sample")
        yield sample


def _require_sides(samples: Sequence[Sample]) -> None:
    if len({bool(sample.side) for sample in samples}) > 1:
        lost = next(sample for sample in samples if not sample.side)
        raise DatasetFormatError(
            f"{lost.where} is on no side, and others are: put train, validation or test into the name of its file "
            "or folder"
        )


def _classes(
    root: Path, samples: Sequence[Sample], class_names: Sequence[str]
) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
    """Return the names of all classes, the number of the first and notes for the user."""
    by_name = next((sample for sample in samples if isinstance(sample.label, str)), None)
    by_number = next((sample for sample in samples if isinstance(sample.label, int)), None)
    if by_name is not None and by_number is not None:
        raise DatasetFormatError(
            f"{by_name.where} has the label {quoted(by_name.label)}, and {by_number.where} has {by_number.label}: "
            "write all labels as names, or all as numbers"
        )
    class_list = None if class_names else find_class_list(root)
    names = tuple(class_names) if class_list is None else read_class_list(class_list)
    if by_number is None:
        used = sorted({str(sample.label) for sample in samples})
        lost = next((sample for sample in samples if names and sample.label not in names), None)
        if lost is not None:
            raise DatasetFormatError(f"{lost.where}: class {quoted(lost.label)} is not in {class_list or 'the table'}")
        return names or tuple(used), 0, ()
    first = _first_number(samples, names, None if class_list is None else first_number(class_list))
    remark = ("labels of the samples count from 1",) if first else ()
    return names or _names_beside(root, samples, first), first, remark


def _first_number(samples: Sequence[Sample], names: Sequence[str], of_list: int | None) -> int:
    """Return 1 if labels count from 1, else 0.

    Raises:
        DatasetFormatError: a label is negative, or higher than there are names.
    """
    numbers = {int(sample.label or 0) for sample in samples}
    from_one = 0 not in numbers and (
        (max(numbers) == len(names) or of_list == 1)
        if names
        else len(numbers) > 1 and numbers == set(range(1, len(numbers) + 1))
    )
    most = len(names) - 1 + from_one if names else _HIGHEST_UNNAMED
    for sample in samples:
        if not 0 <= int(sample.label or 0) <= most:
            raise DatasetFormatError(f"{sample.where}: {sample.label} is not the number of a class, which go to {most}")
    return int(from_one)


def _names_beside(root: Path, samples: Sequence[Sample], first: int) -> tuple[str, ...]:
    """Return the names that samples have beside their numbers; the numbers, where none has one.

    Raises:
        DatasetFormatError: a number has two names, or two numbers have one.
    """
    count = max(int(sample.label or 0) for sample in samples) + 1 - first
    known: dict[int, Sample] = {}
    for sample in samples:
        if not sample.class_name:
            continue
        other = known.setdefault(int(sample.label or 0) - first, sample)
        if other.class_name != sample.class_name:
            raise DatasetFormatError(
                f"{sample.where}: class {sample.label} is {quoted(sample.class_name)}, and {quoted(other.class_name)} "
                f"in {other.where}; give it one name"
            )
    names = tuple(known[label].class_name if label in known else str(label + first) for label in range(count))
    if len({name.lower() for name in names}) < len(names):
        raise DatasetFormatError(f"two classes of {root} have one name: give every number its own, or add classes.txt")
    return names
