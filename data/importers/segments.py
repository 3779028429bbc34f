"""Segments of web videos (Kinetics, ActivityNet): trimmed files on disk, or parts that are cut out of whole videos."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, VideoError, quoted
from ..index.groups import source_group
from ..index.listing import Listing, official_sides
from ..index.records import ListedClip, Subset
from ..reading.listed_media import MediaByName
from ..reading.media import FrameNames, Medium, frame_names

_SIDE_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "validate", "validation"),
    "test": ("test", "testing"),
}


_SAME_RATE = 1e-3
"""Largest difference of a header's average and base rate at which frames are taken to be evenly spaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One entry of a list: seconds of a video and their class."""

    video: str
    """YouTube id, or another name of the source."""
    start: float | None = None
    """Seconds; None for the whole video."""
    end: float | None = None
    label: str
    side: str
    """`train`, `validation` or `test`."""
    frames_per_second: float | None = None
    """From the list; needed for frames that are already extracted."""
    where: str = ""
    """File and line or key, for messages."""

    @property
    def stem(self) -> str:
        """Name of the trimmed file, as the official download scripts write it; for a whole video its id."""
        if self.start is None or self.end is None:
            return self.video
        return f"{self.video}_{int(self.start):06d}_{int(self.end):06d}"

    @property
    def plain_stem(self) -> str:
        """The same without zeros in front of the seconds, as some download programs write it."""
        if self.start is None or self.end is None:
            return self.video
        return f"{self.video}_{int(self.start)}_{int(self.end)}"

    @property
    def exact_stem(self) -> str:
        """The same with milliseconds."""
        return f"{self.video}_{self.start or 0:.3f}_{self.end or 0:.3f}"


def side_of(name: str, where: str) -> str:
    """Return `train`, `validation` or `test` for the name of a side in a list.

    Raises:
        DatasetFormatError: the name is not known.
    """
    for side, names in _SIDE_NAMES.items():
        if name.strip().lower() in names:
            return side
    raise DatasetFormatError(f"{where}: {quoted(name)} is not a side: it must be train, val or test")


@dataclass(kw_only=True)
class SegmentedVideos:
    """Finds segments among the media below a root."""

    root: Path
    untrimmed: bool
    """Whether a file named by the id alone is the whole video, which segments are cut out of."""
    _clocks: dict[str, Clock | None] = field(default_factory=dict)

    @cached_property
    def _media(self) -> MediaByName:
        return MediaByName(self.root)

    def clip(self, segment: Segment, label: int, side: Subset, *, exact: bool = False) -> ListedClip | None:
        """Return the clip of a segment, or None if neither it nor its video exists.

        Args:
            exact: whether another segment begins and ends in the same seconds: then the id has fractions of seconds,
                and a trimmed file, whose name has none, may be that of the other.
        """
        medium = None if exact else self._media.find([segment.stem, segment.plain_stem], folder=segment.label)
        first, end = 0, None
        if medium is None and (self.untrimmed or segment.start is None):
            medium = self._media.find([segment.video, f"v_{segment.video}"], folder=segment.label)
            if medium is not None:
                first, end = self._cut(segment, medium)
        if medium is None:
            return None
        names = frame_names(self.root / medium.path) if medium.kind == "frames" else FrameNames()
        return ListedClip(
            id=f"{segment.label}/{segment.exact_stem if exact else segment.stem}",
            path=medium.path,
            kind=medium.kind,
            frame_name=names.frame,
            flow=names.flow_files(medium.path),
            start=first,
            end=end,
            label=label,
            class_name=segment.label,
            group=_group(segment),
            official=((1, side),),
        )

    def how_to_name(self, segment: Segment) -> str:
        """Return the end of a sentence: what there is of a segment's video, and how its file must be called."""
        alike = self._media.containing(segment.video)
        there = f"; there is {alike.path}" if alike else ""
        return f"{there}: call the files by their ids, such as {segment.stem}.mp4"

    def _cut(self, segment: Segment, medium: Medium) -> tuple[int, int | None]:
        if segment.start is None or segment.end is None:
            return 0, None
        if medium.kind == "video":
            if medium.path not in self._clocks:
                self._clocks[medium.path] = Clock.of(self.root / medium.path)
            clock = self._clocks[medium.path]
        elif segment.frames_per_second is None:
            raise DatasetFormatError(
                f"{self.root / medium.path} holds frames of the whole video {segment.video}, but the list has no "
                "frames per second: give the trimmed frames or the videos"
            )
        else:
            clock = Clock(rate=segment.frames_per_second)
        if clock is None:  # it cannot be read as a video; decoding will report that
            return 0, None
        first = clock.frame_at(segment.start)
        return first, max(clock.frame_at(segment.end), first + 1)


def _group(segment: Segment) -> str:
    known = source_group(segment.label, segment.video)
    if known is None and segment.start is None:
        return f"{segment.label}/{segment.stem}"  # a whole video is its own group
    return known or segment.video


def segments_listing(
    videos: SegmentedVideos, segments: Sequence[Segment], class_names: Sequence[str], notes: Iterable[str] = ()
) -> Listing:
    """Return the listing of the segments that exist; missing ones are counted in one note.

    Raises:
        DatasetNotFoundError: none of them exists.
        DatasetFormatError: a label is not in the class list, or a segment is on two sides.
    """
    labelled = [segment for segment in segments if segment.label]
    sides, remarks = official_sides({segment.side for segment in labelled})
    labels = {name: label for label, name in enumerate(class_names)}
    clips: dict[str, tuple[ListedClip, Segment]] = {}
    spans: dict[tuple[str, str], set[tuple[float | None, float | None]]] = defaultdict(set)
    for segment in labelled:
        spans[segment.label, segment.stem].add((segment.start, segment.end))
    missing: list[str] = []
    for segment in labelled:
        if segment.label not in labels:
            raise DatasetFormatError(
                f"class {quoted(segment.label)} of {segment.stem} is not in the class list; add it"
            )
        exact = len(spans[segment.label, segment.stem]) > 1
        clip = videos.clip(segment, labels[segment.label], sides[segment.side], exact=exact)
        if clip is None:
            missing.append(segment.stem)
            continue
        before, other = clips.setdefault(clip.id, (clip, segment))
        if before.official != clip.official:
            raise DatasetFormatError(
                f"{segment.where or videos.root}: {clip.id} is listed on two sides, also in {other.where}; "
                "leave it on one"
            )
    _require_one_label(videos.root, clips.values())
    if not clips:
        if not labelled:
            raise DatasetNotFoundError(f"no listed video of {videos.root} has a label; add the lists with labels")
        raise DatasetNotFoundError(
            f"{videos.root} has none of the {len(labelled)} listed videos{videos.how_to_name(labelled[0])}"
        )
    all_notes = [*notes, *remarks]
    if missing:
        all_notes.append(f"{len(missing)} of {len(labelled)} listed clips are missing, e.g. {missing[0]}")
    if len(labelled) < len(segments):
        all_notes.append(f"{len(segments) - len(labelled)} listed clips have no label and are left out")
    found = tuple(clip for clip, _ in clips.values())
    return Listing(class_names=tuple(class_names), clips=found, notes=tuple(all_notes))


def _require_one_label(root: Path, clips: Iterable[tuple[ListedClip, Segment]]) -> None:
    """Check that no part of a video is listed under two classes."""
    named: dict[tuple[str, int, int | None], Segment] = {}
    for clip, segment in clips:
        other = named.setdefault((clip.path, clip.start, clip.end), segment)
        if other.label != segment.label:
            raise DatasetFormatError(
                f"{segment.where or root}: {clip.path} is listed as {quoted(segment.label)}, and as "
                f"{quoted(other.label)} in {other.where}; a clip has one label"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """When the frames of a video are shown."""

    rate: float = 0.0
    """Frames per second, constant; 0 if they are not."""
    times: tuple[float, ...] = ()
    """Seconds of each frame, in a video whose rate varies."""

    @classmethod
    def of(cls, path: Path) -> Clock | None:
        """Return the clock of a video, or None if it cannot be read.

        Only where the rates in its header differ, the whole file is read for its timestamps.
        """
        import av  # lists can be read without FFmpeg unless a whole video must be cut

        from ..reading.video import opened

        try:
            with opened(path) as container:
                stream = container.streams.video[0]
                average, base = float(stream.average_rate or 0), float(stream.base_rate or 0)
                if average and abs(base / average - 1) < _SAME_RATE:
                    return cls(rate=average)
                packets = (packet for packet in container.demux(stream) if not packet.is_discard)
                times = sorted(float(p.pts * p.time_base) for p in packets if p.pts is not None)
        except (av.FFmpegError, VideoError):
            return None
        if len(times) < 2 and not average:
            return None
        return cls(times=tuple(time - times[0] for time in times)) if len(times) > 1 else cls(rate=average)

    def frame_at(self, seconds: float) -> int:
        """Return the number of the frame whose time is the nearest."""
        if self.rate:
            return round(seconds * self.rate)
        after = bisect_left(self.times, seconds)
        if after == 0 or after == len(self.times):
            return after
        return after if self.times[after] - seconds < seconds - self.times[after - 1] else after - 1
