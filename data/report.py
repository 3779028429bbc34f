"""Looking a data set over: the index of a folder, and what people want to know about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from .errors import DatasetNotFoundError, SplitError
from .formats import AUTO, importer, resolved
from .groups import regroup
from .index import ClipRecord, Index, ListedClip, Problem, make_index
from .listing import Listing
from .progress import Progress
from .specs import SplitSpec
from .splits import make_split


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCount:
    """Usable clips in each part of one official split, or why it cannot be used."""

    number: int
    fit: int = 0
    validation: int = 0
    test: int = 0
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Everything `hpo data check` shows."""

    version: str
    n_clips: int
    n_frames: int
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[str, ...], ...]
    """Ids of usable clips whose files are byte for byte the same."""
    clips_per_class: dict[str, int]
    groups_per_class: dict[str, int]
    splits: tuple[SplitCount, ...]
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether every listed clip is usable and every split can be trained on."""
        return not self.problems and not any(split.error for split in self.splits)


def scan(
    root: str | Path,
    *,
    name: str = AUTO,
    group_pattern: str | None = None,
    memory: Path | None = None,
    progress: Progress | None = None,
) -> Index:
    """Return the index of a data set, decoding every video once.

    Args:
        root: the data set's folder.
        name: its layout, see `formats.LAYOUTS`; `auto` recognises it.
        group_pattern: see `groups.regroup`.
        memory: file that remembers measured videos, so that a second scan decodes only new ones.

    Raises:
        DatasetError: the folder cannot be read as this format. A broken video is no error: it is
            in the index with its status.
    """
    from .measure import Measurements, measure_all  # brings FFmpeg

    root = Path(root).expanduser()
    name, listing = read_listing(root, name, group_pattern)
    measured = measure_all(
        root,
        listing.clips,
        Measurements(memory),
        progress=progress,
    )
    inherited = [field.name for field in fields(ListedClip)]
    clips = [
        ClipRecord(**{key: getattr(clip, key) for key in inherited}, measured=measured[clip.id])
        for clip in listing.clips
    ]
    return make_index(name=name, class_names=listing.class_names, clips=clips, notes=listing.notes)


def read_listing(root: Path, name: str, group_pattern: str | None) -> tuple[str, Listing]:
    """Return the layout of a data set, recognised where `name` is `auto`, and the clips that it lists.

    Raises:
        DatasetError: the folder cannot be read as this layout.
    """
    try:
        name = resolved(name, root)
        listing = importer(name)(root)
    except OSError as error:
        raise DatasetNotFoundError(f"{root} cannot be read: {error}") from error
    return name, listing if group_pattern is None else regroup(listing, group_pattern)


def check(index: Index) -> CheckReport:
    """Return counts, problems and duplicates of an index; opens no file."""
    by_content: dict[str, list[str]] = {}
    groups: dict[str, set[str]] = {name: set() for name in index.class_names}
    for clip in index.usable:
        by_content.setdefault(clip.measured.sha1, []).append(clip.id)
        groups[clip.class_name].add(clip.group)
    per_class = Counter(clip.class_name for clip in index.usable)
    return CheckReport(
        version=index.hash,
        n_clips=len(index.usable),
        n_frames=sum(clip.n_frames for clip in index.usable),
        problems=index.problems(),
        duplicates=tuple(tuple(ids) for ids in by_content.values() if len(ids) > 1),
        clips_per_class={name: per_class[name] for name in index.class_names},
        groups_per_class={name: len(groups[name]) for name in index.class_names},
        splits=tuple(_count(index, number) for number in index.splits),
        notes=index.notes,
    )


def _count(index: Index, number: int) -> SplitCount:
    try:
        split = make_split(index.clips, SplitSpec(split=number))
    except SplitError as error:
        return SplitCount(number=number, error=str(error))
    usable = {clip.id for clip in index.usable}
    return SplitCount(
        number=number,
        fit=sum(id_ in usable for id_ in split.fit),
        validation=sum(id_ in usable for id_ in split.validation),
        test=sum(id_ in usable for id_ in split.test),
    )
