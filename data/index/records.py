"""The canonical index of a data set: one immutable record per clip, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from ..clip_status import Status
from ..errors import DatasetFormatError, quoted

INDEX_FORMAT = 2

Kind = Literal["video", "frames", "image", "lmdb"]
Subset = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowFiles:
    """Optical flow stored as grey images, one pair for each two neighbouring frames."""

    x: str
    """Path below the root of the horizontal components, with a printf number: `flows/u/v_1/frame%06d.jpg`."""
    y: str
    """The same for the vertical components."""
    first: int = 1
    """Number of the first pair."""
    bound: float = 20.0
    """Pixels per frame at grey 255; grey 127.5 is 0 pixels, grey 0 is `-bound`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedClip:
    """One clip as the lists of a data set name it, before its video is opened."""

    id: str
    """Unique in the data set, the same on every machine: `<class>/<file without suffix>`."""
    path: str
    """Path below the root, with forward slashes, spelled as on disk: of the video, of the folder of its frames, of
    the image, or of the LMDB that holds its frames."""
    kind: Kind = "video"
    """`video` is a file to decode, `frames` a folder of images, `image` one image (a clip of one frame), `lmdb` a
    database of JPEG frames."""
    frame_name: str = ""
    """Printf pattern of the frames' file names (`img_%05d.jpg`) or LMDB keys; empty means all images of the folder
    in natural order. The first number may be 0 or 1."""
    start: int = 0
    """First frame of the clip in its file, folder or LMDB, counted from 0 in decode order."""
    end: int | None = None
    """One past the last frame; None for all frames."""
    label: int
    """Class number from 0."""
    other_labels: tuple[int, ...] = ()
    """Further classes of a clip that shows several; training and scoring use `label`."""
    class_name: str
    group: str
    """Clips of one group share a source; no split may separate them."""
    official: tuple[tuple[int, Subset], ...]
    """Number of each official split that names the clip, and the clip's side in it."""
    flow: FlowFiles | None = None
    """Optical flow that came with the data set, if any."""
    member: str = ""
    """Of a video in a tar archive or a Parquet table, the place in that file, see `reading.packed`; of a clip that is
    one value of an LMDB, its key; empty for files."""

    def subset(self, split: int) -> Subset | None:
        """Return the clip's side in official split number `split`, or None if it is not in that split."""
        return dict(self.official).get(split)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """The result of decoding a clip once. Numbers are 0 if the clip is not usable."""

    status: Status
    n_frames: int = 0
    """Frames that decode, counted, because headers are often wrong."""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    codec: str = ""
    sha1: str = ""
    """Hash of the bytes that hold the clip."""
    frames_hash: str = ""
    """Hash of the decoded frames: equal for two clips with the same pictures. It is not part of the index's hash,
    because another decoder may round differently."""
    turned: str = ""
    """How the frames of a video are turned to be shown, see `reading.turning`; empty if they are stored upright."""
    flow_sha1: str = ""
    """Hash of the bytes of the listed flow of a clip; empty without such flow."""
    note: str = ""
    """A clause that says what is wrong with the video; empty if it is usable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRecord(ListedClip):
    """A listed clip and the result of decoding it."""

    measured: Measurement

    @property
    def usable(self) -> bool:
        return self.measured.status == "ok"

    @property
    def n_frames(self) -> int:
        return self.measured.n_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A clip that was left out, and the reason."""

    id: str
    path: str
    status: Status
    note: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """All clips of a data set, usable or not, in the order of their ids."""

    name: str
    """Importer that read the data set."""
    class_names: tuple[str, ...]
    """A class's position is its label."""
    clips: tuple[ClipRecord, ...]
    notes: tuple[str, ...] = ()
    """Notes for the user that do not concern a single clip; not part of the hash."""

    @cached_property
    def hash(self) -> str:
        """The data set's version: equal if and only if labels, lists and content are equal."""
        records = []
        for clip in self.clips:
            record = _as_dict(clip)
            # The wording of a decoder's errors and its rounding may change with its version.
            del record["measured"]["note"], record["measured"]["frames_hash"]
            # What few clips have is part of the version only where it is, so that other sets keep theirs.
            for name in _OPTIONAL_FIELDS:
                if not record["measured"][name]:
                    del record["measured"][name]
            if not record["member"]:
                del record["member"]
            records.append(record)
        content = {"format": INDEX_FORMAT, "classes": self.class_names, "clips": records}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @cached_property
    def usable(self) -> tuple[ClipRecord, ...]:
        return tuple(clip for clip in self.clips if clip.usable)

    @cached_property
    def splits(self) -> tuple[int, ...]:
        """Numbers of the official splits that the lists describe."""
        return tuple(sorted({number for clip in self.clips for number, _ in clip.official}))

    def problems(self) -> tuple[Problem, ...]:
        """Return every clip that is left out, with the reason."""
        return tuple(
            Problem(id=c.id, path=c.path, status=c.measured.status, note=c.measured.note)
            for c in self.clips
            if not c.usable
        )

    def status_counts(self) -> dict[Status, int]:
        return dict(Counter(clip.measured.status for clip in self.clips))


def make_index(
    *,
    name: str,
    class_names: Iterable[str],
    clips: Iterable[ClipRecord],
    notes: Iterable[str] = (),
) -> Index:
    """Return the index of `clips`, sorted by id.

    Raises:
        DatasetFormatError: two clips have the same id.
    """
    ordered = sorted(clips, key=lambda clip: clip.id)
    for first, second in pairwise(ordered):
        if first.id == second.id:
            raise DatasetFormatError(f"the lists name two clips {quoted(first.id)}; ids must be unique")
    return Index(name=name, class_names=tuple(class_names), clips=tuple(ordered), notes=tuple(notes))


def _as_dict(clip: ClipRecord) -> dict[str, Any]:
    """Return the same as `dataclasses.asdict`, ten times as fast: an index has thousands of records."""
    record = {name: getattr(clip, name) for name in _RECORD_FIELDS}
    record["measured"] = {name: getattr(clip.measured, name) for name in _MEASURED_FIELDS}
    record["flow"] = None if clip.flow is None else asdict(clip.flow)
    return record


_RECORD_FIELDS = tuple(field.name for field in fields(ClipRecord))
_OPTIONAL_FIELDS = ("turned", "flow_sha1")
_MEASURED_FIELDS = tuple(field.name for field in fields(Measurement))
