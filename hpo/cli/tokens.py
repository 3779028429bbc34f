"""`hpo token` and `hpo login`: API tokens, and links that log a browser in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from ..errors import ConflictError, NotFoundError, SetupError
from .app import app, out, settings_of
from .groups import Group
from .studies import AsJson, client_of

group = typer.Typer(cls=Group, no_args_is_help=True, help="Show, create, list and revoke API tokens.")
app.add_typer(group, name="token")
_SCOPES: Final = ("admin", "worker", "read")


@app.command()
def login(context: typer.Context) -> None:
    """Print a new link to the pages of the service; it logs a browser in once, for as long as your token is valid."""
    with client_of(settings_of(context)) as client:
        typer.echo(client.login_link())


@group.command()
def show(context: typer.Context) -> None:
    """Print the token of this machine, for `curl -H "Authorization: Bearer $(hpo token show)"`."""
    settings = settings_of(context)
    if settings.token is None:
        raise SetupError(
            f"there is no token at {settings.token_file}: start `hpo serve` on this machine, or set HPO_TOKEN"
        )
    typer.echo(settings.token)


@group.command()
def generate() -> None:
    """Print a new token that no service knows yet, for a secret that `hpo serve --tokens-dir` takes over."""
    from ..store import tokens

    typer.echo(tokens.generate())


@group.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the token, such as gpu-host-7.", show_default=False)],
    scope: Annotated[str, typer.Option(help="admin, worker or read.")] = "worker",
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="End its validity after 12h, 7d or 4w.", show_default=False)
    ] = None,
    expires_in_hours: Annotated[
        float | None, typer.Option(help="The same as a number of hours.", show_default=False)
    ] = None,
) -> None:
    """Create a token for another machine and print it; it is shown only once."""
    if scope not in _SCOPES:
        raise typer.BadParameter(f"--scope {scope}: choose one of {', '.join(_SCOPES)}")
    if expires is not None:
        if expires_in_hours is not None:
            raise typer.BadParameter("give --expires or --expires-in-hours, not both")
        expires_in_hours = _hours(expires)
    with client_of(settings_of(context)) as client:
        typer.echo(client.create_token(name, [scope], expires_in_hours=expires_in_hours)["token"])


def _hours(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip())
    if found is None:
        raise typer.BadParameter(f"--expires {text}: write a number and m, h, d or w, such as 12h or 7d")
    return float(found[1]) * {"m": 1 / 60, "h": 1, "d": 24, "w": 168}[found[2]]


@group.command("list")
def list_tokens(context: typer.Context, as_json: AsJson = False) -> None:
    """List the tokens: what each may do, when it was last used (to the minute), and whether it is valid."""
    with client_of(settings_of(context)) as client:
        found = client.tokens()
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("id", "name", "scopes", "created", "last used", "state")
    for token in found:
        times = (_day(token["created_at"]), _day(token["last_used_at"]) or "never")
        table.add_row(str(token["id"]), token["name"], ", ".join(token["scopes"]), *times, _state(token))
    out.print(table)


@group.command()
def revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="Id or name, as `hpo token list` shows them.", show_default=False)],
) -> None:
    """Make a token invalid from now on; the browsers that logged in with it are logged out."""
    with client_of(settings_of(context)) as client:
        revoked = client.revoke_token(_id_of(token, client.tokens()))
    out.print(f"token {revoked['id']} ({revoked['name']}) is not valid any more")


def _id_of(token: str, known: Sequence[Mapping[str, Any]]) -> int:
    """Return the id of the valid token of that id or name.

    Raises:
        NotFoundError: there is none.
        ConflictError: several have the name.
    """
    valid = [entry for entry in known if _state(entry).startswith("valid")]
    ids = [int(entry["id"]) for entry in valid if str(entry["id"]) == token]
    ids = ids or [int(entry["id"]) for entry in valid if entry["name"] == token]
    if not ids:
        raise NotFoundError(f"there is no valid token {token!r}; `hpo token list` shows them")
    if len(ids) > 1:
        raise ConflictError(f"{len(ids)} tokens are called {token!r}; give an id: {', '.join(map(str, ids))}")
    return ids[0]


def _state(token: Mapping[str, Any]) -> str:
    if token["revoked_at"] is not None:
        return f"revoked {_day(token['revoked_at'])}"
    if token["expires_at"] is None:
        return "valid"
    has_expired = datetime.fromisoformat(token["expires_at"]) <= datetime.now(UTC)
    return f"expired {_day(token['expires_at'])}" if has_expired else f"valid until {_day(token['expires_at'])}"


def _day(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M}"
