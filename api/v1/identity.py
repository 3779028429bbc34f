"""Whether this is the service that wrote down its address: open, since it is asked before a token is sent."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from hpo.client import identity
from hpo.errors import NotFoundError

from ..problems import responses
from ..state import State

router = APIRouter(prefix=identity.PATH, tags=["health"])

Nonce = Annotated[str, Query(pattern=rf"^[0-9a-f]{{{identity.NONCE_CHARACTERS}}}$", description="Never used before.")]


class Proof(BaseModel):
    """HMAC-SHA256, in hexadecimal digits, of the nonce and this server's address under the key in `server.json`."""

    proof: str


@router.get("", responses={status: responses(404)[status] for status in (404, 422)}, operation_id="prove_identity")
def prove_identity(state: State, nonce: Nonce) -> Proof:
    """Prove to a client on this machine that this is the service of its data directory. No token is needed."""
    own = state.config.identity
    if own is None:
        raise NotFoundError("this service is named in no data directory; give its address with --url")
    return Proof(proof=identity.proof(own.key, nonce=nonce, url=own.url))
