"""The reports of `hpo data check` (problems of a data set) and `hpo data stats` (its content)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import InvalidSpecError, SplitError
from ..index.records import ClipRecord, Index, Problem
from ..index.splits import make_split
from ..specs import SplitSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCount:
    """Numbers of usable clips in each part of one official split, or the reason why it cannot be used."""

    number: int
    fit: int = 0
    validation: int = 0
    test: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """The content of `hpo data check`."""

    layout: str
    version: str
    n_clips: int
    n_frames: int
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[str, ...], ...]
    """Ids of usable clips with the same decoded frames, in tuples."""
    sizes: dict[str, int]
    """Number of clips by width x height, most frequent first."""
    clips_per_class: dict[str, int]
    groups_per_class: dict[str, int]
    splits: tuple[SplitCount, ...]
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether every listed clip is usable and every split can be trained on."""
        return not self.problems and not any(split.error for split in self.splits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The distribution of a quantity over clips in five numbers: minimum, quartiles and maximum."""

    least: float
    lower: float
    """A quarter of the clips have less."""
    median: float
    upper: float
    """A quarter of the clips have more."""
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of values; each number is one of them."""
        ordered = sorted(values) or [0.0]
        last = len(ordered) - 1
        least, lower, median, upper, most = (ordered[round(last * share)] for share in (0, 0.25, 0.5, 0.75, 1))
        return cls(least=least, lower=lower, median=median, upper=upper, most=most)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassStats:
    """The usable clips of one class."""

    name: str
    clips: int
    groups: int
    frames: int
    sides: dict[str, dict[str, int]]
    """Number of clips by split number and side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """The content of `hpo data stats`, over usable clips."""

    layout: str
    version: str
    clips: int
    groups: int
    frames: int
    hours: float
    """Of the clips with a known frame rate."""
    frames_per_clip: Spread
    short_side: Spread
    fps: dict[str, int]
    sizes: dict[str, int]
    kinds: dict[str, int]
    codecs: dict[str, int]
    classes: tuple[ClassStats, ...]


def check(index: Index) -> CheckReport:
    """Return counts, problems and duplicates of an index, without opening a file."""
    by_content: defaultdict[str, list[str]] = defaultdict(list)
    groups: dict[str, set[str]] = {name: set() for name in index.class_names}
    for clip in index.usable:
        by_content[clip.measured.frames_hash].append(clip.id)
        groups[clip.class_name].add(clip.group)
    per_class = Counter(clip.class_name for clip in index.usable)
    return CheckReport(
        layout=index.name,
        version=index.hash,
        n_clips=len(index.usable),
        n_frames=sum(clip.n_frames for clip in index.usable),
        problems=index.problems(),
        duplicates=tuple(tuple(ids) for ids in by_content.values() if len(ids) > 1),
        sizes=_sizes(index.usable),
        clips_per_class={name: per_class[name] for name in index.class_names},
        groups_per_class={name: len(groups[name]) for name in index.class_names},
        splits=tuple(_count(index, number) for number in index.splits),
        notes=(*index.notes, *_contradictions(index, by_content.values()), *_unused(index)),
    )


def _contradictions(index: Index, same: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a note on each pair of equal videos in two classes, or on two sides of a split."""
    clips = {clip.id: clip for clip in index.usable}
    for ids in same:
        first, *others = (clips[id_] for id_ in ids)
        for other in others:
            if other.label != first.label:
                yield f"{first.id} and {other.id} are the same video in two classes: remove one"
            shared = dict(first.official)
            if any(shared.get(number, side) != side for number, side in other.official):
                yield f"{first.id} and {other.id} are the same video on two sides of a split: remove one"


def _unused(index: Index) -> Iterator[str]:
    """Yield a note on each kind of clip and class that no training or test uses."""
    if len(index.class_names) == 1:
        yield f"there is one class only, {index.class_names[0]}: a model has nothing to tell it from"
    listed = {clip.class_name for clip in index.clips}
    absent = [name for name in index.class_names if name not in listed]
    broken = sorted(listed - {clip.class_name for clip in index.usable})
    nowhere = [clip.id for clip in index.clips if not clip.official]
    for what, found in (
        ("classes have no clip", absent),
        ("classes have no usable clip", broken),
        ("clips are on no official split", nowhere),
    ):
        if found:
            yield f"{len(found)} {what}, e.g. {found[0]}"
    images = [clip.id for clip in index.usable if clip.kind == "image"]
    if images and index.name != "image_folders":
        yield (
            f"{len(images)} pictures are clips of one frame each, e.g. {images[0]}: the frames of a video belong into "
            "a folder of their own"
        )
    for number in index.splits:
        by_side: defaultdict[str, set[str]] = defaultdict(set)
        for clip in index.usable:
            by_side[clip.subset(number) or ""].add(clip.class_name)
        only_tested = sorted((by_side["test"] | by_side["validation"]) - by_side["train"])
        if only_tested:
            yield f"{len(only_tested)} classes are not on the train list of split {number}, e.g. {only_tested[0]}"


def stats(index: Index) -> Stats:
    """Return statistics of an index, without opening a file."""
    clips = index.usable
    by_class: defaultdict[str, list[ClipRecord]] = defaultdict(list)
    for clip in clips:
        by_class[clip.class_name].append(clip)
    return Stats(
        layout=index.name,
        version=index.hash,
        clips=len(clips),
        groups=len({clip.group for clip in clips}),
        frames=sum(clip.n_frames for clip in clips),
        hours=sum(clip.n_frames / clip.measured.fps for clip in clips if clip.measured.fps > 0) / 3600,
        frames_per_clip=Spread.of(clip.n_frames for clip in clips),
        short_side=Spread.of(min(clip.measured.width, clip.measured.height) for clip in clips),
        fps=_frequent(f"{clip.measured.fps:.4g}" for clip in clips),
        sizes=_sizes(clips),
        kinds=_frequent(clip.kind for clip in clips),
        codecs=_frequent(clip.measured.codec for clip in clips),
        classes=tuple(_class_stats(name, by_class[name]) for name in index.class_names),
    )


def _class_stats(name: str, clips: Sequence[ClipRecord]) -> ClassStats:
    sides: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        for number, side in clip.official:
            sides[str(number)][side] += 1
    return ClassStats(
        name=name,
        clips=len(clips),
        groups=len({clip.group for clip in clips}),
        frames=sum(clip.n_frames for clip in clips),
        sides={number: dict(counts) for number, counts in sorted(sides.items())},
    )


def _count(index: Index, number: int) -> SplitCount:
    try:
        split = make_split(index.clips, SplitSpec(split=number))
    except (SplitError, InvalidSpecError) as error:
        return SplitCount(number=number, error=str(error))
    usable = {clip.id for clip in index.usable}
    return SplitCount(
        number=number,
        fit=sum(id_ in usable for id_ in split.fit),
        validation=sum(id_ in usable for id_ in split.validation),
        test=sum(id_ in usable for id_ in split.test),
        notes=split.notes,
    )


def _sizes(clips: Iterable[ClipRecord]) -> dict[str, int]:
    return _frequent(f"{clip.measured.width}x{clip.measured.height}" for clip in clips)


def _frequent(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
