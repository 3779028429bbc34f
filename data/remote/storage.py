"""Files at an address of fsspec: which there are, and copies of them, with every failure as one sentence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import fsspec
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ..errors import DatasetError, DatasetFormatError, DatasetNotFoundError, RemoteError
from ..parallel import in_threads
from ..specs.place import require_address, shown

R = TypeVar("R")
ATTEMPTS: Final = 4
_AT_ONCE: Final = 16
"""Files that are asked for at the same time."""
WAIT: Final = wait_random_exponential(multiplier=0.5, max=20)
_PACKAGES: Final = {
    **dict.fromkeys(("s3", "s3a"), "'video-hpo[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "'video-hpo[gs]'"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "hf": "'video-hpo[hub]'",
}
_VERSIONS: Final = (
    *("ETag", "etag", "md5Hash", "content_md5", "blob_id", "sha", "sha256", "ino", "mtime", "LastModified"),
    *("last_modified", "updated", "modified", "created", "Last-Modified", "Content-MD5", "Digest"),
)
"""What file systems call that which changes with a file's content."""
_QUERY: Final = re.compile(r"\?[^\s'\")]*")
_LONGEST_REASON: Final = 200
_WEB: Final = frozenset({"http", "https"})
_REFUSALS: Final = frozenset({"401", "403"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file below an address."""

    path: str
    """As its file system calls it."""
    name: str
    """Below the address."""
    size: int
    """-1 where it is not said."""
    version: str
    """Changes with the content, as far as the storage says."""


class Storage:
    """The files below one address."""

    def __init__(self, root: str) -> None:
        """Find the file system of an address; nothing is asked of it yet.

        Raises:
            DatasetError: the address is none, or its file system is not installed.
        """
        try:
            require_address(root)
        except ValueError as error:
            raise DatasetFormatError(str(error)) from None
        self.root = root
        scheme = root.partition("://")[0]
        self._is_web = scheme.lower() in _WEB
        try:
            # Listings are not kept: a file that has changed is to be noticed.
            self._files, self._folder = fsspec.core.url_to_fs(root, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            package = _PACKAGES.get(scheme.lower())
            how = f"pip install {package}" if package else _reason(error)
            raise DatasetError(f"{scheme}:// needs a package that is not installed: {how}") from None
        except Exception as error:  # what its client raises on a name that is none, or on its own settings
            raise DatasetFormatError(f"{root} cannot be opened: {_reason(error)}") from None

    def files(self) -> list[RemoteFile]:
        """Return all files, in the order of their names; hidden ones are left out.

        Raises:
            DatasetNotFoundError: there is no such folder, or it may not be read.
            RemoteError: the storage does not answer.
            DatasetFormatError: a name leads out of the folder.
        """
        found = self._asked(lambda: self._files.find(self._folder, detail=True), self.root)
        paths = [path for path, info in sorted(found.items()) if info.get("type") in ("file", "link")]
        files = list(
            in_threads(lambda path: self._file(path, self._described(path, found[path])), paths, at_once=_AT_ONCE)
        )
        files = [file for file in files if not any(part.startswith(".") for part in file.name.split("/"))]
        if not files:
            raise DatasetNotFoundError(f"there are no files in {self.root}; give the address of the data set's folder")
        return [file for file in files if not file.name.endswith("/")]

    def _described(self, path: str, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a listing says of a file; a page of the web says nothing but the name, so the file is asked."""
        if not self._is_web:
            return info
        described: Mapping[str, Any] = self._asked(lambda: self._files.info(path), path)
        return described

    def _file(self, path: str, info: Mapping[str, Any]) -> RemoteFile:
        folder = str(self._folder).rstrip("/")
        name = path.removeprefix(folder).lstrip("/") or PurePosixPath(path).name
        if self._is_web:
            name = unquote(name)
        if ".." in name.split("/") or "\0" in name or "\\" in name:
            raise DatasetFormatError(f"{self.root} holds the name {name!r}, which is no path below it; rename it")
        size = info.get("size")
        version = "|".join(f"{key}={info[key]}" for key in _VERSIONS if info.get(key) is not None)
        return RemoteFile(path=path, name=name, size=-1 if size is None else int(size), version=f"{size}|{version}")

    def copy(self, file: RemoteFile, place: Path) -> None:
        """Write a file to `place`, all of it.

        Raises:
            DatasetNotFoundError: it is gone, or may not be read.
            RemoteError: the storage does not answer, or breaks off again and again.
            OSError: `place` cannot be written.
        """

        def copy() -> None:
            self._files.get_file(file.path, str(place))
            if file.size >= 0 and place.stat().st_size != file.size:
                raise _BrokenOffError(f"{place.stat().st_size} of {file.size} bytes came")

        self._asked(copy, f"{self.root.rstrip('/')}/{file.name}")

    def _asked(self, ask: Callable[[], R], what: str) -> R:
        """Return an answer of the storage, which is asked again where that may help."""
        try:
            for attempt in Retrying(
                stop=stop_after_attempt(ATTEMPTS), wait=WAIT, retry=retry_if_exception(_may_pass), reraise=False
            ):
                with attempt:
                    return ask()
        except RetryError as error:
            last = error.last_attempt.exception()
            raise RemoteError(
                f"{what} cannot be read, after {ATTEMPTS} attempts: {_reason(last)}; check the address, the "
                "network and the credentials"
            ) from None
        except FileNotFoundError:
            raise DatasetNotFoundError(
                f"there is no {what}; check the address, and the credentials if it is private"
            ) from None
        except Exception as error:  # each client raises classes of its own
            if not _is_refused(error):
                raise
            raise DatasetNotFoundError(
                f"{what} may not be read: {_reason(error)}; give this machine the credentials of the storage, or let "
                "others read it"
            ) from None
        raise AssertionError("tenacity ends with an answer or an exception")


class _BrokenOffError(OSError):
    """A file has another length than the storage says."""


def _may_pass(error: BaseException) -> bool:
    """Return whether another attempt may have another result."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) or _is_refused(error):
        return False
    return isinstance(error, Exception) and not (isinstance(error, OSError) and _is_of_this_disk(error))


def _is_refused(error: BaseException) -> bool:
    """Return whether a storage says that who asks may not read."""
    # Of aiohttp, huggingface_hub and gcsfs, in this order: aiohttp warns where `code` is asked for.
    found = (error, "status"), (getattr(error, "response", None), "status_code"), (error, "code")
    codes = (getattr(answer, name, None) for answer, name in found)
    return isinstance(error, PermissionError) or str(next(filter(None, codes), None)) in _REFUSALS


def _is_of_this_disk(error: OSError) -> bool:
    import errno

    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def _reason(error: BaseException | None) -> str:
    """Return what an error says in one line, without signatures; its class, if it says nothing."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    first = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
    text = _QUERY.sub("?…", shown_in(first))
    text = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
    return text or type(error).__name__


def shown_in(text: str) -> str:
    """Return a text without the passwords of addresses in it."""
    return re.sub(r"//[^/@\s]*:[^/@\s]*@", "//…@", text)


def key_of(root: str) -> str:
    """Return a name for the folder of what is copied from an address."""
    return hashlib.sha256(shown(root).rstrip("/").encode()).hexdigest()[:16]
