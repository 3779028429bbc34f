"""Errors of the data package.

    DatasetError
    ├── InvalidSpecError        a field of a specification is out of range
    ├── UnknownDatasetError     no importer has this name
    ├── DatasetNotFoundError    the folder, its videos or its lists are missing
    ├── DatasetFormatError      a list or class file is not in its format
    ├── SplitError              a split lacks clips, classes or groups
    │   └── GroupLeakError      a group is on two sides of a split
    ├── ExportError             the data set cannot be written in another layout
    ├── VideoError              one video cannot be decoded
    ├── FlowError               optical flow cannot be computed here
    └── CacheError              the frame cache cannot be built or read

Every message is one sentence that names the path and says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clip_status import Status


class DatasetError(Exception):
    """The data set cannot be used as asked."""


class InvalidSpecError(DatasetError, ValueError):
    """A field of a data specification is out of range."""


class UnknownDatasetError(DatasetError):
    """No importer has this name."""


class DatasetNotFoundError(DatasetError):
    """The data set's folder, videos or lists are missing."""


class DatasetFormatError(DatasetError):
    """A list or class file is not in its format."""


class SplitError(DatasetError):
    """A split lacks clips, classes or groups."""


class GroupLeakError(SplitError):
    """A group of clips is on two sides of a split."""


class ExportError(DatasetError):
    """The data set cannot be written in another layout."""


class VideoError(DatasetError):
    """A video cannot be decoded."""

    def __init__(self, message: str, *, status: Status = "corrupt") -> None:
        """Make the error; `status` is the status of the clip in the index."""
        super().__init__(message)
        self.status = status


class FlowError(DatasetError):
    """Optical flow cannot be computed with the requested method."""


class CacheError(DatasetError):
    """The frame cache cannot be built or read."""
