"""Whether anything answers at the address of a Ray cluster: Ray itself tries for minutes, and says nothing."""

from __future__ import annotations

import os
import socket
from typing import Final
from urllib.parse import urlsplit

from ..errors import SetupError

_CONNECT_SECONDS: Final = 10.0
_OWN_WORDS: Final = ("auto", "local")
"""What Ray takes in place of an address."""


def address_of(given: str | None) -> str:
    """Return the address that Ray connects to: the one given, else what `RAY_ADDRESS` says, else `auto`."""
    return given or os.environ.get("RAY_ADDRESS") or "auto"


def require_answer(address: str) -> None:
    """Connect to an address such as `head:6379` or `ray://head:10001` and hang up; to none of an extension of Ray.

    Raises:
        SetupError: it is no address, or nothing answers there.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SetupError(f"the address of the Ray cluster, {address}, is not HOST:PORT ({error})") from error
    if host is None or port is None:
        if "://" in address or address in _OWN_WORDS:
            return
        raise SetupError(f"the address of the Ray cluster, {address}, is not HOST:PORT (of the head, often :6379)")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # the latter where a name cannot be one, as with two dots in a row
        why = getattr(error, "strerror", None) or error
        raise SetupError(
            f"nothing answers at {address}, the address of the Ray cluster ({why}): give that of "
            "its head, HOST:6379, with --address, or start one with `ray start --head`"
        ) from error
