"""Where a data set is: a folder, or an address of fsspec such as `s3://bucket/ucf101`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOCAL: Final = frozenset({"file", "local"})
"""Of mounted folders, which are copied, too, where they are named by an address."""


def is_remote(root: str) -> bool:
    """Return whether a root is an address and no folder."""
    return _ADDRESS.match(root) is not None


def shown(root: str) -> str:
    """Return an address without what may be a secret in it."""
    return re.sub(r"//[^/@]*:[^/@]*@", "//…@", re.split(r"[?#]", root, maxsplit=1)[0])


def require_address(root: str) -> None:
    """Check that an address names one place, and holds no credentials.

    Raises:
        ValueError: it does not; the message repeats no secret.
    """
    scheme, _, rest = root.partition("://")
    host = rest.partition("/")[0]
    if ":" in host.rpartition("@")[0]:
        raise ValueError(
            f"{shown(root)} holds a password or key: leave it out, and give it to each machine in the environment or "
            "in a file, as the client of that storage reads it"
        )
    if "?" in rest or "#" in rest:
        raise ValueError(f"{shown(root)} goes on with ? or #, where signatures stand: leave that out")
    if "::" in root:
        raise ValueError(f"{shown(root)} joins several addresses with ::, give one")
    is_mounted = scheme.lower() in _LOCAL and rest.startswith("/")
    parts = rest.lower().replace("%2e", ".").replace("%2f", "/").split("/")
    if ".." in parts or "\\" in rest or not root.isprintable() or not (host or is_mounted):
        raise ValueError(f"{shown(root)} is not the address of a folder, such as s3://bucket/folder")
    try:
        urlsplit(root)
    except ValueError:
        raise ValueError(f"{shown(root)} is not the address of a folder, such as s3://bucket/folder") from None


def is_below(root: str, allowed: Iterable[str]) -> bool:
    """Return whether an address is one of those `allowed`, or lies in it."""
    place = _plain(root)
    return any(place == each or place.startswith(f"{each}/") for each in map(_plain, allowed))


def _plain(root: str) -> str:
    scheme, _, rest = root.partition("://")
    return f"{scheme.lower()}://{rest.rstrip('/')}"
