"""Bearer tokens, one-time login codes and browser sessions.

A token is `hpo_`, 43 random characters and 6 that check them, so that a mistyped one is refused without asking the
database. The table keeps an HMAC-SHA256 under a key that is not in the database: neither alone gives access.

A login code and a session belong to an API token, and are valid only as long as that token is.
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

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    RowMapping,
    and_,
    any_,
    exists,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql

from ..errors import AuthenticationError, ConflictError, NotFoundError
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
USE_SECONDS: Final = 60.0
"""`last_used_at` is written at most once in this time, so that most requests write nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """What is known of a token; the token itself is not kept."""

    id: int
    name: str
    kind: TokenKind
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = field(default=None, compare=False)
    """Up to 90 s too early: it is written once in `USE_SECONDS`, and not while the API remembers who holds the token
    (`api.auth.known`)."""
    parent_id: int | None = None
    """The API token that a login code or a session belongs to."""

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
    parent: int | None = None,
) -> str:
    """Make a token and return it in plain, the only time it can be seen.

    Login codes and sessions need `expires`, a time span from now by the database's clock or a point in time, and
    `parent`, the id of the API token that they belong to.
    """
    if (kind == "api") != (parent is None):
        raise ValueError("login codes and sessions, and no others, belong to a token")
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
    connection.execute(insert(api_token).values(**values, parent_id=parent))
    return token


def take(connection: Connection, token: str, *, name: str, scopes: Iterable[str], key: bytes) -> None:
    """Make a token known that `generate` has made elsewhere; one that is known already stays as it is.

    Raises:
        AuthenticationError: it has not the form of a token, or is known and revoked, expired or of other scopes.
    """
    wanted = sorted(set(scopes))
    hashed = _hashed_if_wellformed(token, key)
    values = {"name": name, "kind": "api", "hash": hashed, "scopes": wanted}
    # Of replicas that start at the same time, one writes.
    connection.execute(postgresql.insert(api_token).values(**values).on_conflict_do_nothing())
    if verify(connection, token, key).scopes != set(wanted):
        raise AuthenticationError


def generate() -> str:
    """Make a fresh token in the right form; only `create` and `take` make it known."""
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
    """Return who a token belongs to, and note that it was used.

    Raises:
        AuthenticationError: it is unknown, revoked, expired or of another kind, or the token that it belongs to is.
    """
    hashed = _hashed_if_wellformed(token, key)
    query = select(api_token, _was_used_long_ago().label("long_ago")).where(
        api_token.c.hash == hashed, api_token.c.kind == kind, _is_valid()
    )
    found = connection.execute(query).mappings().one_or_none()
    row = _checked(found, hashed)
    if found is not None and found["long_ago"]:
        # Of several requests at once, one writes.
        used = update(api_token).where(api_token.c.id == row.id, _was_used_long_ago()).values(last_used_at=NOW)
        connection.execute(used)
    return row


def check(connection: Connection, token_id: int) -> None:
    """Check that a token that was verified earlier is valid still.

    Raises:
        AuthenticationError: it is not.
    """
    if connection.execute(select(api_token.c.id).where(api_token.c.id == token_id, _is_valid())).first() is None:
        raise AuthenticationError


def redeem(connection: Connection, code: str, key: bytes) -> TokenRow:
    """Use up a one-time login code; of two that try at once, one succeeds.

    Raises:
        AuthenticationError: it is unknown, used or expired.
    """
    hashed = _hashed_if_wellformed(code, key)
    statement = (
        update(api_token)
        .where(api_token.c.hash == hashed, api_token.c.kind == "login", _is_valid())
        .values(revoked_at=NOW)
        .returning(api_token)
    )
    return _checked(connection.execute(statement).mappings().one_or_none(), hashed)


def revoke(connection: Connection, token_id: int) -> TokenRow:
    """Make a token, and what belongs to it, invalid from now on; doing it again changes nothing.

    Raises:
        NotFoundError: there is no token of that id.
        ConflictError: nobody would be left who may make tokens.
    """
    _keep_an_admin(connection, token_id)
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


def _keep_an_admin(connection: Connection, token_id: int) -> None:
    # The rows are locked, so that of two who revoke each other's token one is refused.
    query = select(api_token.c.id).where(
        api_token.c.kind == "api", literal("admin") == any_(api_token.c.scopes), _is_alive(api_token)
    )
    admins = connection.execute(query.order_by(api_token.c.id).with_for_update()).scalars().all()
    if list(admins) == [token_id]:
        raise ConflictError(
            f"token {token_id} is the last one with the scope 'admin'; make another first: "
            "`hpo token create NAME --scope admin`"
        )


def _was_used_long_ago() -> ColumnElement[bool]:
    moment = text("clock_timestamp() - make_interval(secs => :use_seconds)").bindparams(use_seconds=USE_SECONDS)
    return or_(api_token.c.last_used_at.is_(None), api_token.c.last_used_at < moment)


def _is_valid() -> ColumnElement[bool]:
    parent = api_token.alias("parent")
    of_parent = exists().where(parent.c.id == api_token.c.parent_id, _is_alive(parent))
    return and_(_is_alive(api_token), or_(api_token.c.kind == "api", of_parent))


def _is_alive(table: FromClause) -> ColumnElement[bool]:
    return and_(table.c.revoked_at.is_(None), or_(table.c.expires_at.is_(None), table.c.expires_at > NOW))


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
