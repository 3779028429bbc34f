"""Whose token a worker's call carries, remembered for a short time.

A worker's call about trials checks its token in the statement that it makes (`{token_is_valid}` of `lifecycle.sql`), so
that a revoked one changes nothing from its revocation on. What is remembered here is only who holds it: it spares the
call a round trip to the database. All other requests ask the database first.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from hpo.store.tokens import USE_SECONDS, TokenRow

KNOWN_SECONDS: Final = USE_SECONDS / 2
"""Then the database is asked again, which notes the use of the token as well."""
MOST_TOKENS: Final = 10_000
_CHECKED_LATER: Final = re.compile(r"/v1/leases|/v1/trials/[0-9]+/(reports|finish|release)")


def is_checked_later(method: str, path: str) -> bool:
    """Return whether the statement that a call makes checks its token."""
    return method == "POST" and _CHECKED_LATER.fullmatch(path) is not None


class KnownTokens:
    """Who holds the tokens that were valid lately, by a digest of the header; safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, TokenRow]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, header: str) -> TokenRow | None:
        """Return who holds the token of an Authorization header, if that was found out a short time ago."""
        with self._lock:
            until, row = self._known.get(_digest(header), (0.0, None))
        return row if self._clock() < until else None

    def add(self, header: str, row: TokenRow) -> None:
        """Remember who holds the token of a header; of too many, the oldest is forgotten."""
        with self._lock:
            self._known[_digest(header)] = self._clock() + KNOWN_SECONDS, row
            self._known.move_to_end(_digest(header))
            if len(self._known) > MOST_TOKENS:
                self._known.popitem(last=False)


def _digest(header: str) -> bytes:
    return hashlib.sha256(header.encode("utf-8", "surrogateescape")).digest()
