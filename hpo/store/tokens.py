"""Bearer tokens, one-time login codes and browser sessions.

A token is `hpo_`, 43 random characters and 6 that check them, so that a mistyped one is refused without asking the
database. The table keeps an HMAC-SHA256 under a key that is not in the database: neither alone gives access.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection, RowMapping, insert, or_, select, text, update

from ..errors import AuthenticationError, NotFoundError
from .tables import NOW, SCOPES, api_token

TokenKind = Literal["api", "login", "session"]
Scope = Literal["admin", "worker", "read"]

_PREFIX: Final = "hpo_"
_RANDOM_BYTES: Final = 32
_RANDOM_CHARACTERS: Final = 43
_CHECKSUM_CHARACTERS: Final = 6
_IMPLIED: Final[dict[str, frozenset[str]]] = {
    "admin": frozenset({"admin", "worker", "read"}),
    "worker": frozenset({"worker", "read"}),
    "read": frozenset({"read"}),
}
_ALIVE = (api_token.c.revoked_at.is_(None), or_(api_token.c.expires_at.is_(None), api_token.c.expires_at > NOW))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """What is known of a token; the token itself is not kept."""

    id: int
    name: str
    kind: TokenKind
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = field(default=None)

    def allows(self, scope: Scope) -> bool:
        """Return whether the token grants `scope`: admin implies all, worker implies read."""
        return any(scope in _IMPLIED[held] for held in self.scopes)


def create(
    connection: Connection,
    *,
    name: str,
    scopes: Iterable[str],
    key: bytes,
    expires: timedelta | datetime | None = None,
    kind: TokenKind = "api",
) -> str:
    """Make a token and give it in plain, the only time it can be seen.

    Login codes and sessions need `expires`: a time span from now by the database's clock, or a point in time.
    """
    unknown = set(scopes := sorted(set(scopes))) - set(SCOPES)
    if unknown or not scopes:
        raise ValueError(f"scopes are {', '.join(SCOPES)}; got {scopes}")
    token = generate()
    deadline: Any = expires
    if isinstance(expires, timedelta):
        deadline = text("clock_timestamp() + make_interval(secs => :expires)").bindparams(
            expires=expires.total_seconds()
        )
    values = {"name": name, "kind": kind, "hash": _hash(token, key), "scopes": scopes, "expires_at": deadline}
    connection.execute(insert(api_token).values(values))
    return token


def generate() -> str:
    """Make a fresh token in the right form; only `create` makes it known."""
    body = secrets.token_urlsafe(_RANDOM_BYTES)
    return f"{_PREFIX}{body}{_checksum(body)}"


def is_wellformed(token: str) -> bool:
    """Return whether prefix, length and checksum fit, which says nothing about who made it."""
    body, checksum = token[len(_PREFIX) : -_CHECKSUM_CHARACTERS], token[-_CHECKSUM_CHARACTERS:]
    return (
        token.startswith(_PREFIX)
        and token.isascii()
        and len(body) == _RANDOM_CHARACTERS
        and hmac.compare_digest(checksum, _checksum(body))
    )


def verify(connection: Connection, token: str, key: bytes, *, kind: TokenKind = "api") -> TokenRow:
    """Look up who a token belongs to.

    Raises:
        AuthenticationError: it is unknown, revoked, expired or of another kind.
    """
    hashed = _hashed_if_wellformed(token, key)
    query = select(api_token).where(api_token.c.hash == hashed, api_token.c.kind == kind, *_ALIVE)
    return _checked(connection.execute(query).mappings().one_or_none(), hashed)


def redeem(connection: Connection, code: str, key: bytes) -> TokenRow:
    """Use up a one-time login code; of two that try at once, one succeeds.

    Raises:
        AuthenticationError: it is unknown, used or expired.
    """
    hashed = _hashed_if_wellformed(code, key)
    statement = (
        update(api_token)
        .where(api_token.c.hash == hashed, api_token.c.kind == "login", *_ALIVE)
        .values(revoked_at=NOW)
        .returning(api_token)
    )
    return _checked(connection.execute(statement).mappings().one_or_none(), hashed)


def revoke(connection: Connection, token_id: int) -> TokenRow:
    """Make a token invalid from now on; doing it again changes nothing.

    Raises:
        NotFoundError: there is no token of that id.
    """
    connection.execute(
        update(api_token).where(api_token.c.id == token_id, api_token.c.revoked_at.is_(None)).values(revoked_at=NOW)
    )
    row = connection.execute(select(api_token).where(api_token.c.id == token_id)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no token {token_id}; `hpo token list` shows them")
    return _row(row)


def list_all(connection: Connection, *, kind: TokenKind | None = None) -> list[TokenRow]:
    """List tokens, revoked and expired ones included, in the order they were made."""
    query = select(api_token).order_by(api_token.c.id)
    if kind is not None:
        query = query.where(api_token.c.kind == kind)
    return [_row(row) for row in connection.execute(query).mappings()]


def _hashed_if_wellformed(token: str, key: bytes) -> bytes:
    if not is_wellformed(token):
        raise AuthenticationError
    return _hash(token, key)


def _hash(token: str, key: bytes) -> bytes:
    if len(key) < 16:
        raise ValueError("the key of the token hashes must have at least 16 bytes")
    return hmac.new(key, token.encode("ascii"), hashlib.sha256).digest()


def _checksum(body: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body.encode()).digest()).decode()[:_CHECKSUM_CHARACTERS]


def _checked(row: RowMapping | None, hashed: bytes) -> TokenRow:
    if row is None or not hmac.compare_digest(bytes(row["hash"]), hashed):
        raise AuthenticationError
    return _row(row)


def _row(row: RowMapping) -> TokenRow:
    columns = TokenRow.__dataclass_fields__
    return TokenRow(**{**{name: row[name] for name in columns}, "scopes": frozenset(row["scopes"])})
