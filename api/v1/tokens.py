"""API tokens: make, list, revoke."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from hpo.store import tokens

from ..auth.scopes import BEARER, Admin
from ..problems import responses
from ..state import State

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], dependencies=[Depends(BEARER)])


class NewToken(BaseModel):
    """What a new token may do: `admin` everything, `worker` run trials and read, `read` look."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"name": "gpu-host-7", "scopes": ["worker"], "expires_in_hours": 720}]},
    )

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .:@/()-]+$")]
    scopes: Annotated[list[Literal["admin", "worker", "read"]], Field(min_length=1, max_length=3)]
    expires_in_hours: Annotated[float, Field(gt=0, le=24 * 3650)] | None = None


class CreatedToken(BaseModel):
    """A token's text, this one time."""

    name: str
    token: str


class Token(BaseModel):
    """What is known of a token."""

    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """Up to a minute too early; null before the first use."""


@router.post("", status_code=201, responses=responses(), operation_id="create_token")
def create_token(state: State, _: Admin, wanted: NewToken) -> CreatedToken:
    """Make a token. Its text is in this answer and nowhere else."""
    expires = None if wanted.expires_in_hours is None else timedelta(hours=wanted.expires_in_hours)
    with state.database.transaction() as connection:
        text = tokens.create(connection, name=wanted.name, scopes=wanted.scopes, key=state.config.key, expires=expires)
    return CreatedToken(name=wanted.name, token=text)


@router.get("", responses=responses(), operation_id="list_tokens")
def list_tokens(state: State, _: Admin) -> list[Token]:
    """List the tokens, revoked and expired ones too; never their text."""
    with state.database.transaction() as connection:
        return [_token(row) for row in tokens.list_all(connection, kind="api")]


@router.delete("/{token_id}", responses=responses(404, 409), operation_id="revoke_token")
def revoke_token(state: State, _: Admin, token_id: Annotated[int, Path(ge=0, le=2**63 - 1)]) -> Token:
    """Make a token invalid from now on, and end the sessions and streams of those who used it."""
    with state.database.transaction() as connection:
        return _token(tokens.revoke(connection, token_id))


def _token(row: tokens.TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        scopes=sorted(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
