"""Lists whose first line names their columns: which of them is the path, the label, the offset and the count."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DatasetFormatError, quoted

_PATHS = (
    *("path", "file_path", "filepath", "video_path", "clip_path", "filename", "file_name", "file"),
    *("video", "clip", "video_name", "clip_name", "name", "video_id", "id"),
)
"""Names of the column of paths; of several in one list, the first here is that of the paths."""
_LABEL_NUMBERS = frozenset({"label_id", "class_id"})
_CLASS_NAMES = "class_name"
_LABELS = frozenset({"label", "labels", "class", "target", "category", "tag", _CLASS_NAMES, *_LABEL_NUMBERS})
_COUNTS = frozenset({"frames", "n_frames", "num_frames", "total_frames"})
_STARTS = frozenset({"start", "offset", "start_frame"})
_ENDS = frozenset({"end", "end_frame"})
COLUMNS = frozenset({*_PATHS, *_LABELS, *_COUNTS, *_STARTS, *_ENDS})
"""Known names of columns."""
LEAST_KNOWN = 2
"""Number of known names at which a first line counts as one of column names."""
_DELIMITERS = "\t;,"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns of a list, as its first line names them."""

    names: tuple[str, ...]
    """In lower case."""
    delimiter: str
    """Empty for white space."""
    where: str
    """File and line, for messages."""

    @classmethod
    def of(cls, line: str, where: str) -> Columns:
        """Return the columns that a line names; see `lists.is_header` for whether it does."""
        delimiter = next((mark for mark in _DELIMITERS if mark in line), "")
        names = next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()
        return cls(names=tuple(name.strip('" ').lower() for name in names), delimiter=delimiter, where=where)

    @property
    def are_first_last_label(self) -> bool:
        """Return whether they are those of `frame_lists`: path, first frame, last frame and any labels."""
        kinds = (frozenset(_PATHS), _STARTS, _ENDS, _LABELS)
        return len(self.names) >= len(kinds) - 1 and all(
            name in kinds[min(place, 3)] for place, name in enumerate(self.names)
        )

    def path(self) -> int:
        """Return the position of the paths.

        Raises:
            DatasetFormatError: no column has them.
        """
        found = [self.names.index(name) for name in _PATHS if name in self.names]
        if not found:
            raise DatasetFormatError(f"{self.where} names no column of paths: call it path")
        return found[0]

    def label(self) -> int | None:
        """Return the position of the labels, or None.

        Raises:
            DatasetFormatError: several columns may be meant.
        """
        found = [place for place, name in enumerate(self.names) if name in _LABELS]
        numbers = [place for place in found if self.names[place] in _LABEL_NUMBERS]
        others = [place for place in found if self.names[place] != _CLASS_NAMES]
        chosen = next((places for places in (found, numbers, others) if len(places) == 1), found)
        if len(chosen) > 1:
            names = " and ".join(self.names[place] for place in chosen)
            raise DatasetFormatError(f"{self.where} names several columns of labels, {names}: leave one of them")
        return chosen[0] if chosen else None

    def class_name(self) -> int | None:
        """Return the position of the names of the classes beside that of their numbers, or None."""
        chosen = self.label()
        others = [place for place, name in enumerate(self.names) if name in _LABELS and place != chosen]
        return others[0] if chosen is not None and len(others) == 1 else None

    def segment(self) -> tuple[int, int] | None:
        """Return the positions of the number of frames before a segment and of those in it, or None for whole clips.

        Raises:
            DatasetFormatError: a segment has a start or an end only, or is given by its last frame.
        """
        starts, counts, ends = (
            [place for place, name in enumerate(self.names) if name in kind] for kind in (_STARTS, _COUNTS, _ENDS)
        )
        if not starts and not ends:
            return None
        if ends or len(starts) > 1 or len(counts) != 1:
            raise DatasetFormatError(
                f"{self.where}: segments are read from the columns offset (frames before the first) and num_frames: "
                "write these in place of other starts and ends"
            )
        return starts[0], counts[0]

    def fields(self, line: str, where: str) -> Sequence[str]:
        """Return the columns of a line.

        Raises:
            DatasetFormatError: it has more or fewer than the first line names.
        """
        if self.delimiter:
            fields = next(csv.reader([line], delimiter=self.delimiter, skipinitialspace=True))
        else:
            fields = line.split()
        if len(fields) != len(self.names):
            raise DatasetFormatError(
                f"{where}: {quoted(line)} has {len(fields)} columns, and {self.where} names {len(self.names)}: "
                "separate columns by commas, and write what holds a comma in double quotes"
            )
        return [field.strip('" ') for field in fields]
