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
    ├── CacheError              the frame cache cannot be built or read
    └── DiskError               a disk or a mount fails, whatever file is read

Every message is one sentence that names the path and says what to do.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .clip_status import Status

DISK_ERRORS: Final = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO),
        *(errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EUCLEAN, errno.ENOLINK),
        *(errno.ESHUTDOWN, errno.EBADMSG),
    }
)
"""What the system says of a disk or a mount that is full or fails; no file's content is to blame."""


_QUOTED_CHARACTERS: Final = 100
_quoting = {"is_on": True}


def hide_contents() -> None:
    """Leave what files hold out of the messages of this process from now on: others read them, too."""
    _quoting["is_on"] = False


def quoted(content: object) -> str:
    """Return what a file holds for a message: at most the first 100 characters, and none after `hide_contents`."""
    if not _quoting["is_on"]:
        return "what it says"
    text = repr(content)
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…"


class DatasetError(Exception):
    """The data set cannot be used as asked."""


class InvalidSpecError(DatasetError, ValueError):
    """A field of a data specification is out of range."""


class UnknownDatasetError(DatasetError):
    """No importer has this name."""


class DatasetNotFoundError(DatasetError):
    """The data set's folder, videos or lists are missing."""


class DecoderUnavailableError(DatasetNotFoundError):
    """A decoder that a specification names does not load on this machine."""


class RemoteError(DatasetNotFoundError):
    """The storage of a data set does not answer."""


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


class DamagedCacheError(CacheError):
    """Files of a finished cache are missing or have another size: it can be built again."""


class DiskError(DatasetError):
    """A disk or a mount fails, whatever file is read."""
