"""`hpo db`: the schema of the database."""

from __future__ import annotations

import typer

from .app import app, out, settings_of
from .serve import make_home, postgres

group = typer.Typer(no_args_is_help=True, help="Maintain the database.")
app.add_typer(group, name="db")


@group.command()
def upgrade(context: typer.Context) -> None:
    """Bring the schema up to date; `hpo serve` does this at its start."""
    from ..store import migrate

    settings = settings_of(context)
    make_home(settings)
    with postgres(settings) as url:
        migrate(url)
    out.print("the schema is up to date")
