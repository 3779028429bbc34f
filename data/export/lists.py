"""Writing a data set in the layouts of other tools: their lists, and links to the clips under safe names.

    ucf101         videos/<Class>/<clip>.avi, annotations/ucf101_splits/{classInd,trainlist01,testlist01,...}.txt
    annot_json     images/<clip>/, flows/{u,v}/<clip>/, annotations/annot01.json, ...
    frame_lists    <Class>/<clip>/, train.txt, val.txt, test.txt of one split, label_map.txt
    videofolder    train/<Class>/<clip>.avi, train/metadata.csv, test/... of one split; labels.txt
    path_lists     videos/ or rawframes/<Class>/<clip>, annotations/train_split_1_videos.txt, ..., label_map.txt

Shards and tables, which hold the videos themselves, are written in `packed`.

Names keep letters, digits, `.`, `-` and `_`; anything else becomes `_`, because many tools fail at a space or a
semicolon. Unusable clips are left out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from ..errors import ExportError, SplitError
from ..index.records import ClipRecord, Index, Subset
from ..reading.packed import video_file
from .packed import PackedClip, metadata_csv, suffix_of_clip, write_shards, write_tables
from .safe_names import SafeName, safe_folders, safe_names

ExportFormat = Literal["ucf101", "annot_json", "frame_lists", "path_lists", "webdataset", "videofolder", "parquet"]
_MMACTION2 = {
    "video": ("videos", "videos"),
    "frames": ("rawframes", "rawframes"),
    "image": ("images", "images"),
}
"""Folder of the media and ending of the lists, by the kind of the clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """The result of an export."""

    clips: int
    lists: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    """Information that the layout cannot hold, and remaining steps for the user."""


def export(index: Index, root: Path, out: Path, form: ExportFormat, *, split: int = 1) -> Exported:
    """Return what was written: lists of the usable clips of `index`, and links to their files below `root`.

    Existing links and lists of the same names in the folder `out` are replaced. No video is copied.

    Args:
        split: official split for the layouts that hold only one.

    Raises:
        ExportError: the clips cannot be written in this layout, or the folder cannot be written.
        SplitError: the split does not exist.
    """
    if form not in get_args(ExportFormat):
        raise ExportError(f"no export is called {form!r}; known: {', '.join(get_args(ExportFormat))}")
    if split not in index.splits:
        raise SplitError(f"the data set has no split {split}; its lists describe {list(index.splits)}")
    entries = list(_entries(index))
    if not entries:
        raise ExportError(f"{root} has no usable clip to export")
    exporter = _Exporter(index=index, root=root.absolute(), out=out, entries=entries)
    try:
        out.mkdir(parents=True, exist_ok=True)
        writers: dict[ExportFormat, Callable[[], Exported]] = {
            "ucf101": exporter.ucf101,
            "annot_json": exporter.annot_json,
            "frame_lists": lambda: exporter.frame_lists(split),
            "path_lists": exporter.path_lists,
            "webdataset": lambda: exporter.webdataset(split),
            "videofolder": lambda: exporter.videofolder(split),
            "parquet": lambda: exporter.parquet(split),
        }
        return writers[form]()
    except OSError as error:
        raise ExportError(f"{out} cannot be written to: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A clip and its safe name."""

    clip: ClipRecord
    name: SafeName


def _entries(index: Index) -> Iterator[_Entry]:
    names = safe_names(index.usable, index.class_names)
    for clip in index.usable:
        yield _Entry(clip=clip, name=names[clip.id])


@dataclass(frozen=True, kw_only=True)
class _Exporter:
    """Writes one data set."""

    index: Index
    root: Path
    out: Path
    entries: list[_Entry]

    def ucf101(self) -> Exported:
        self._require({"video"}, whole=True, form="ucf101")
        folder = self.out / "annotations" / "ucf101_splits"
        names = self._folders()
        lists = [_write(folder / "classInd.txt", [f"{n} {name}" for n, name in enumerate(names, start=1)])]
        paths = {entry.clip.id: f"{entry.name}{_suffix(entry)}" for entry in self.entries}
        for entry in self.entries:
            self._put(entry, self.out / "videos" / paths[entry.clip.id])
        for split in self.index.splits:
            train, test = self._on("train", split), self._on("test", split)
            lines = [f"{paths[entry.clip.id]} {entry.clip.label + 1}" for entry in train]
            lists.append(_write(folder / f"trainlist{split:02d}.txt", lines))
            lists.append(_write(folder / f"testlist{split:02d}.txt", [paths[entry.clip.id] for entry in test]))
        return self._done(lists, self._unsaid_validation())

    def annot_json(self) -> Exported:
        self._require({"video", "frames"}, whole=True, form="annot_json")
        notes = self._frames_in("annot_json", lambda entry: f"images/{entry.name.stem}")
        notes += self._link_flow()
        lists = []
        for split in self.index.splits:
            content = {
                "labels": {str(n): name for n, name in enumerate(self._folders(), start=1)},
                "training": self._annotations("training", self._on("train", split)),
                "validation": self._annotations("validation", self._on("test", split)),
            }
            path = self.out / "annotations" / f"annot{split:02d}.json"
            lists.append(_write(path, [json.dumps(content)]))
        return self._done(lists, notes + self._unsaid_validation())

    def frame_lists(self, split: int) -> Exported:
        self._require({"video", "frames"}, whole=False, form="frame_lists")
        notes = self._frames_in("ibm", lambda entry: f"{entry.name}")
        lists = [self._label_map()]
        for name, entries in self._train_val_test(split).items():
            lines = []
            for entry in entries:
                labels = " ".join(str(label) for label in (entry.clip.label, *entry.clip.other_labels))
                first, last = entry.clip.start + 1, entry.clip.start + entry.clip.n_frames
                lines.append(f"{entry.name} {first} {last} {labels}")
            lists.append(_write(self.out / f"{name}.txt", lines))
        return self._done(lists, notes)

    def path_lists(self) -> Exported:
        kind = self._require({"video", "frames", "image"}, whole=False, form="path_lists")
        cut = any(_is_cut(entry) for entry in self.entries)
        if kind != "frames" and cut:
            raise ExportError("path_lists cannot say which part of a video is meant; extract the frames first")
        folder, ending = _MMACTION2[kind]
        for entry in self.entries:
            path = f"{folder}/{entry.name}{_suffix(entry)}"
            self._put(entry, self.out / path)
        lists = [self._label_map()]
        for split in self.index.splits:
            for name, entries in self._train_val_test(split).items():
                lines = [_path_line(entry, offsets=cut) for entry in entries]
                lists.append(_write(self.out / "annotations" / f"{name}_split_{split}_{ending}.txt", lines))
        return self._done(lists, [])

    def webdataset(self, split: int) -> Exported:
        sides = self._sides("webdataset", split)
        return self._packed(sides, write_shards(self.out, sides))

    def parquet(self, split: int) -> Exported:
        sides = self._sides("parquet", split)
        return self._packed(sides, write_tables(self.out, sides, self.index.class_names))

    def videofolder(self, split: int) -> Exported:
        sides = self._sides("videofolder", split)
        lists = [_write(self.out / "labels.txt", list(self.index.class_names))]
        for side, clips in sides.items():
            lists.append(_write(self.out / side / "metadata.csv", metadata_csv(clips)))
            for each in clips:
                self._put(each, self.out / side / f"{each.name}{each.suffix}")
        return self._packed(sides, lists)

    def _sides(self, form: str, split: int) -> dict[str, list[PackedClip]]:
        self._require({"video"}, whole=True, form=form)
        sides: tuple[Subset, ...] = ("train", "validation", "test")
        found = {
            side: [PackedClip(clip=entry.clip, name=entry.name, root=self.root) for entry in self._on(side, split)]
            for side in sides
        }
        return {side: clips for side, clips in found.items() if clips}

    def _packed(self, sides: dict[str, list[PackedClip]], written: list[Path]) -> Exported:
        notes = []
        clips = sum(map(len, sides.values()))
        if clips < len(self.entries):
            notes.append(f"{len(self.entries) - clips} clips are on no side of this split and are left out")
        if len(self.index.splits) > 1:
            notes.append(f"the layout holds one split; the others of {list(self.index.splits)} are left out")
        if any(entry.clip.other_labels for entry in self.entries):
            notes.append("the layout holds one label of a clip; others are left out")
        return Exported(clips=clips, lists=tuple(written), notes=tuple(notes))

    def _put(self, entry: _Entry | PackedClip, place: Path) -> None:
        """Link a clip's file, or write the video that is within one."""
        if not entry.clip.member:
            _link(self.root / entry.clip.path, place)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        with video_file(entry.clip, self.root).open("rb") as video, place.open("wb") as file:
            shutil.copyfileobj(video, file)

    def _require(self, kinds: set[str], *, whole: bool, form: str) -> str:
        """Return the kind of all clips if the layout can hold it."""
        found = sorted({entry.clip.kind for entry in self.entries})
        if len(found) > 1 or found[0] not in kinds:
            wanted = " or ".join(sorted(kinds))
            raise ExportError(f"{form} holds {wanted} only, not {' and '.join(found)}; choose another layout")
        if whole and any(_is_cut(entry) for entry in self.entries):
            raise ExportError(f"{form} cannot say which part of a file is meant; choose frame_lists")
        return found[0]

    def _folders(self) -> list[str]:
        return list(safe_folders(self.index.class_names).values())

    def _on(self, side: Subset, split: int) -> list[_Entry]:
        return [entry for entry in self.entries if entry.clip.subset(split) == side]

    def _train_val_test(self, split: int) -> dict[str, list[_Entry]]:
        """Return the lists by the names that tools expect: `val` is the test list if there is no validation list."""
        train, validation, test = (self._on(side, split) for side in ("train", "validation", "test"))
        named = {"train": train, "val": validation, "test": test} if validation else {"train": train, "val": test}
        return {name: entries for name, entries in named.items() if entries}

    def _unsaid_validation(self) -> list[str]:
        unsaid = sum(side == "validation" for entry in self.entries for _, side in entry.clip.official)
        return [f"{unsaid} entries of official validation lists have no place in this layout"] if unsaid else []

    def _label_map(self) -> Path:
        return _write(self.out / "label_map.txt", self._folders())

    def _frames_in(self, naming: str, path: Callable[[_Entry], str]) -> list[str]:
        """Link folders of frames; return a note with the command that writes the frames of videos."""
        videos = 0
        for entry in self.entries:
            if entry.clip.kind == "frames":
                _link(self.root / entry.clip.path, self.out / path(entry))
            videos += entry.clip.kind == "video"
        extract = f"`hpo data extract {self.root} {self.out} --naming {naming}`"
        return [f"the lists count the frames of {videos} videos; {extract} writes them"] if videos else []

    def _link_flow(self) -> list[str]:
        for entry in self.entries:
            flow = entry.clip.flow
            if flow is None:
                continue
            x, y = (PurePosixPath(pattern.replace("%%", "%")).parent for pattern in (flow.x, flow.y))
            if x == y:
                return ["flow that is beside the frames in one folder cannot be linked in this layout"]
            _link(self.root / x, self.out / "flows" / "u" / entry.name.stem)
            _link(self.root / y, self.out / "flows" / "v" / entry.name.stem)
        return []

    def _annotations(self, side: str, entries: list[_Entry]) -> dict[str, dict[str, object]]:
        return {
            entry.name.stem: {"set": side, "label": entry.clip.label + 1, "nframes": entry.clip.n_frames}
            for entry in entries
        }

    def _done(self, lists: list[Path], notes: list[str]) -> Exported:
        return Exported(clips=len(self.entries), lists=tuple(lists), notes=tuple(notes))


def _is_cut(entry: _Entry) -> bool:
    return entry.clip.start > 0 or entry.clip.end is not None


def _suffix(entry: _Entry) -> str:
    return "" if entry.clip.kind == "frames" else suffix_of_clip(entry.clip)


def _path_line(entry: _Entry, *, offsets: bool) -> str:
    clip = entry.clip
    path = f"{entry.name}{_suffix(entry)}"
    if clip.kind != "frames":
        return f"{path} {clip.label}"
    numbers = (clip.start, clip.n_frames, clip.label) if offsets else (clip.n_frames, clip.label)
    return " ".join([path, *map(str, numbers)])


def _link(source: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise ExportError(f"{link} exists and is not a link: export into an empty folder")
    link.symlink_to(source)


def _write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return aside.replace(path)
