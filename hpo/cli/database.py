"""`hpo db`: the schema of the database, its backups, and whether its rows agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import HpoError
from .app import app, out, settings_of
from .groups import Group
from .serve import make_home, postgres

group = typer.Typer(cls=Group, no_args_is_help=True, help="Maintain the database.")
app.add_typer(group, name="db")

BackupFile = Annotated[Path, typer.Argument(help="File of a backup.", show_default=False)]


@group.command()
def upgrade(context: typer.Context) -> None:
    """Bring the schema up to date; `hpo serve` does this at its start."""
    from ..store import migrate

    settings = settings_of(context)
    make_home(settings)
    with postgres(settings) as url:
        migrate(url)
    out.print("the schema is up to date")


@group.command()
def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="File to write; one of that name is replaced.", show_default=False)],
) -> None:
    """Write a backup of the database, also while the service runs: the state of one moment.

    Checkpoints are not in it, nor is `secret` in the data directory, without which its tokens are unknown.
    """
    from ..store import backup as backups

    settings = settings_of(context)
    make_home(settings)
    with postgres(settings) as url:
        backups.backup(url, file)
    out.print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


@group.command()
def restore(context: typer.Context, file: BackupFile) -> None:
    """Read a backup into an empty database, all of it or nothing, and bring its schema up to date."""
    from ..store import backup as backups
    from ..store import migrate

    settings = settings_of(context)
    make_home(settings)
    with postgres(settings) as url:
        backups.restore(url, file)
        migrate(url)
    out.print(f"{file} is restored; `hpo serve` continues its studies")


@group.command()
def check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A backup to check instead.", show_default=False)] = None,
) -> None:
    """Read every row and check that the rows agree with each other; or check that a backup is whole.

    Exit status 1: something is wrong.
    """
    from ..store import Database, consistency
    from ..store import backup as backups

    if file is not None:
        revision = backups.revision_of(file)
        out.print(f"{file} is whole (tables of version {revision})")
        return
    settings = settings_of(context)
    make_home(settings)
    with postgres(settings) as url:
        backups.read_all(url)
        database = Database(url, pool_size=1)
        try:
            with database.transaction() as connection:
                found = list(consistency.problems(connection))
        finally:
            database.close()
    for sentence in found:
        out.print(sentence)
    if found:
        raise HpoError(f"{len(found)} things are wrong with the database")
    out.print("every row can be read, and all agree")
