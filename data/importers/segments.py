"""Segments of web videos (Kinetics, ActivityNet): trimmed files on disk, or parts that are cut out of whole videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.groups import source_group
from ..index.listing import Listing, is_pipe_or_device, official_sides
from ..index.records import ListedClip, Subset
from ..reading.media import FrameNames, MediaByName, Medium, frame_names

_SIDE_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "validate", "validation"),
    "test": ("test", "testing"),
}


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

    @property
    def stem(self) -> str:
        """Name of the trimmed file, as the official download scripts write it; for a whole video its id."""
        if self.start is None or self.end is None:
            return self.video
        return f"{self.video}_{int(self.start):06d}_{int(self.end):06d}"


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
    _rates: dict[str, float | None] = field(default_factory=dict)

    @cached_property
    def _media(self) -> MediaByName:
        return MediaByName(self.root)

    def clip(self, segment: Segment, label: int, side: Subset) -> ListedClip | None:
        """Return the clip of a segment, or None if neither it nor its video exists."""
        medium = self._media.find([segment.stem], folder=segment.label)
        first, end = 0, None
        if medium is None and (self.untrimmed or segment.start is None):
            medium = self._media.find([segment.video, f"v_{segment.video}"], folder=segment.label)
            if medium is not None:
                first, end = self._cut(segment, medium)
        if medium is None:
            return None
        names = frame_names(self.root / medium.path) if medium.kind == "frames" else FrameNames()
        return ListedClip(
            id=f"{segment.label}/{segment.stem}",
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

    def _cut(self, segment: Segment, medium: Medium) -> tuple[int, int | None]:
        if segment.start is None or segment.end is None:
            return 0, None
        if medium.kind == "video":
            if medium.path not in self._rates:
                self._rates[medium.path] = frame_rate(self.root / medium.path)
            rate = self._rates[medium.path]
        else:
            rate = segment.frames_per_second
            if rate is None:
                raise DatasetFormatError(
                    f"{self.root / medium.path} holds frames of the whole video {segment.video}, but the list has no "
                    "frames per second: give the trimmed frames or the videos"
                )
        if rate is None:  # it cannot be read as a video; decoding will report that
            return 0, None
        return round(segment.start * rate), max(round(segment.end * rate), round(segment.start * rate) + 1)


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
    clips: dict[str, ListedClip] = {}
    missing: list[str] = []
    for segment in labelled:
        if segment.label not in labels:
            raise DatasetFormatError(
                f"class {quoted(segment.label)} of {segment.stem} is not in the class list; add it"
            )
        clip = videos.clip(segment, labels[segment.label], sides[segment.side])
        if clip is None:
            missing.append(segment.stem)
        elif clips.setdefault(clip.id, clip).official != clip.official:
            raise DatasetFormatError(f"{clip.id} is listed on two sides; leave it on one")
    if not clips:
        raise DatasetNotFoundError(f"{videos.root} has none of the {len(labelled)} listed videos, e.g. {missing[:1]}")
    all_notes = [*notes, *remarks]
    if missing:
        all_notes.append(f"{len(missing)} of {len(labelled)} listed clips are missing, e.g. {missing[0]}")
    if len(labelled) < len(segments):
        all_notes.append(f"{len(segments) - len(labelled)} listed clips have no label and are left out")
    return Listing(class_names=tuple(class_names), clips=tuple(clips.values()), notes=tuple(all_notes))


def frame_rate(path: Path) -> float | None:
    """Return the average frames per second in a video's header, or None if there is none."""
    if is_pipe_or_device(path):
        return None
    import av  # lists can be read without FFmpeg unless a whole video must be cut

    try:
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            streams = container.streams.video
            rate = streams[0].average_rate if streams else None
    except (av.FFmpegError, OSError):
        return None
    return float(rate) if rate else None
