"""Where the weights of a training come from: files in configured folders, torchvision, Hugging Face.

A source is written as text: a file by its name relative to a folder of weights, ``torchvision:NAME``, ``hf:REPO`` or
``hf:REPO/FILE``. Nothing here needs torch, except for the names that torchvision has; see :mod:`.downloads`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ..errors import WeightsError, WeightsUnavailableError

NO_WEIGHTS: Final = "none"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):(.*)$", re.DOTALL)
_HUB_PART = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_NOTHING: Final = frozenset({"none", "null", "nil", "false", "no"})
"""What people write for no weights; a file of such a name is more likely a slip."""
_FORMS: Final = "a file name such as r50/k400.pth, torchvision:NAME, hf:REPO, hf:REPO/FILE, or none"


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file in one of the folders of weights."""

    name: PurePosixPath
    """Relative to the folder."""


@dataclass(frozen=True, slots=True)
class TorchvisionSource:
    """Weights that torchvision publishes."""

    name: str
    """Of a model, such as ``r3d_18``, for its default weights; or of weights, ``R3D_18_Weights.KINETICS400_V1``."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a repository of Hugging Face."""

    repo: str
    """With its owner: ``OWNER/NAME``."""
    file: PurePosixPath | None
    """Relative to the repository; None for the file with the usual name."""


Source = FileSource | TorchvisionSource | HubSource


def parse_source(text: str) -> Source:
    """Return the source that `text` stands for; raise WeightsError if it stands for none that could ever be read."""
    if not text.isprintable() or text != text.strip():
        raise WeightsError(f"{text!r} is not a source of weights: write it without line breaks, tabs and outer spaces")
    if text.lower() in _NOTHING:
        raise WeightsError(f"{text!r} is not a source of weights: write {NO_WEIGHTS} to train from scratch")
    found = _SCHEME.match(text)
    if found is None:
        return _file_source(text)
    if found[1] == "torchvision" and found[2]:
        return TorchvisionSource(found[2])
    if found[1] == "hf":
        return _hub_source(text, found[2])
    raise WeightsError(f"{text!r} is not a source of weights: write {_FORMS}")


def _file_source(text: str) -> FileSource:
    name = PurePosixPath(text)
    if name.is_absolute() or text.startswith("~"):
        raise WeightsError(
            f"the weights file {text!r} must be named relative to a folder of weights, which each worker sets with "
            "--weights-root or HPO_WEIGHTS_ROOTS"
        )
    if ".." in name.parts or not name.parts:
        raise WeightsError(f"the weights file {text!r} would lie outside the folders of weights: write it without ..")
    return FileSource(name)


def _hub_source(text: str, address: str) -> HubSource:
    owner, _, rest = address.partition("/")
    name, _, file = rest.partition("/")
    if not _HUB_PART.match(owner) or not _HUB_PART.match(name):
        raise WeightsError(f"{text!r} names no repository of Hugging Face: write hf:OWNER/NAME or hf:OWNER/NAME/FILE")
    path = PurePosixPath(file) if file else None
    if path is not None and (path.is_absolute() or ".." in path.parts):
        raise WeightsError(f"{text!r} names no file of a repository: write it without ..")
    return HubSource(f"{owner}/{name}", path)


def find_weights(text: str, roots: Sequence[Path], *, downloads: Path | None = None) -> Path:
    """Return the file of a source on this machine.

    A file is the first one found in `roots`, in their order. What torchvision and Hugging Face publish is in
    `downloads`, a folder that all processes of a machine may share; it is downloaded when it is not there.

    Raises WeightsUnavailableError if this machine has no such file and cannot download it, or has a folder there or a
    link that leads out of its folder of weights; and WeightsError if no machine can have it: see `parse_source`, and a
    name that is not published.
    """
    source = parse_source(text)
    if isinstance(source, FileSource):
        return _find_file(text, source, roots)
    if downloads is None:
        raise WeightsUnavailableError(f"{text} has no folder here to be downloaded to")
    # It imports torch, and files do not need it.
    from .downloads import hub_file, torchvision_file

    if isinstance(source, HubSource):
        return hub_file(source.repo, source.file, downloads / "hf")
    return torchvision_file(source.name, downloads / "torchvision")


def _find_file(text: str, source: FileSource, roots: Sequence[Path]) -> Path:
    for root in roots:
        path = root / source.name
        try:
            is_there = path.exists()
        except OSError as error:  # a folder that may not be searched, a name that is too long
            raise WeightsUnavailableError(_closed(path, error.strerror)) from error
        if not is_there:
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            raise WeightsUnavailableError(
                f"the weights file {path} of this machine is a link that leads out of {root}: put the file itself there"
            )
        if not path.is_file():
            raise WeightsUnavailableError(f"the weights file {path} of this machine is not a file: put the file there")
        if not os.access(path, os.R_OK):
            raise WeightsUnavailableError(_closed(path, os.strerror(errno.EACCES)))
        return path
    where = " and ".join(map(str, roots)) or "any folder: no folder of weights is set"
    raise WeightsUnavailableError(f"this machine has no weights file {text!r} in {where}: put it there")


def _closed(path: Path, reason: str | None) -> str:
    return f"the weights file {path} of this machine cannot be read ({reason}): let the worker's user read it"


def check_source(text: str) -> None:
    """Raise WeightsError if `text` stands for no source, or for weights that torchvision does not publish."""
    source = parse_source(text)
    if isinstance(source, TorchvisionSource):
        from .downloads import torchvision_url

        torchvision_url(source.name)
