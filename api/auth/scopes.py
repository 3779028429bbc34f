"""Who is asking and what they may do. `admin` implies `worker` implies `read`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from hpo.errors import AuthenticationError, PermissionDeniedError
from hpo.store.tokens import Scope, TokenRow

BEARER = HTTPBearer(auto_error=False, description="`hpo token show` prints the token of this machine.")
"""For the OpenAPI document; the check itself is the gate's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The holder of a valid token or session."""

    token: TokenRow

    @property
    def name(self) -> str:
        """Who did it, for the record of events."""
        return self.token.name

    @property
    def token_id(self) -> int:
        """Which token it is: leases belong to the one that claimed them."""
        return self.token.id


def require(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """Make a dependency that lets only holders of `scope` through."""

    async def check(request: Request) -> Principal:
        principal = request.scope.get("principal")
        if not isinstance(principal, Principal):
            raise AuthenticationError
        if not principal.token.allows(scope):
            own = ", ".join(sorted(principal.token.scopes))
            raise PermissionDeniedError(f"this needs a token with the scope {scope!r}; {principal.name!r} has {own}")
        return principal

    return check


async def _anybody(request: Request) -> Principal | None:
    principal = request.scope.get("principal")
    return principal if isinstance(principal, Principal) and principal.token.allows("read") else None


async def _store_is_away(request: Request) -> bool:
    return bool(request.scope.get("store_is_away", False))


Reader = Annotated[Principal, Depends(require("read"))]
WorkerOnly = Annotated[Principal, Depends(require("worker"))]
Admin = Annotated[Principal, Depends(require("admin"))]
ReaderOrStranger = Annotated[Principal | None, Depends(_anybody)]
"""On an open route: who may read, or None for everybody else."""
StoreIsAway = Annotated[bool, Depends(_store_is_away)]
"""On an open route: whether Postgres could not be reached when the token was looked up."""
