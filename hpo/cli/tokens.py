"""`hpo token`: show and create API tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import SetupError
from .app import app, settings_of

group = typer.Typer(no_args_is_help=True, help="Show and create API tokens.")
app.add_typer(group, name="token")


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
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the token, such as gpu-host-7.", show_default=False)],
    scope: Annotated[str, typer.Option(help="admin, worker or read.")] = "worker",
) -> None:
    """Create a token for another machine and print it; it is shown only once."""
    from ..client.http import Client

    settings = settings_of(context)
    with Client(settings.api_url, settings.token) as client:
        typer.echo(client.create_token(name, [scope])["token"])
