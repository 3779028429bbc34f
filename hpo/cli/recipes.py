"""`hpo recipes`: settings of published trainings, which a study takes as defaults."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from .app import app, out
from .groups import Group

group = typer.Typer(cls=Group, help="List the recipes, and show one.")
app.add_typer(group, name="recipes")


@group.callback(invoke_without_command=True)
def recipes(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the recipes: settings of published trainings, which `task: {recipe: NAME}` takes as defaults."""
    if context.invoked_subcommand is not None:
        return
    from ..spec.recipes import list_recipes, recipe

    found = [recipe(name) for name in list_recipes()]
    if as_json:
        keys = ("name", "about", "source", "epochs", "base")
        shown = [{key: getattr(one, key) for key in keys} for one in found]
        typer.echo(json.dumps(shown))
        return
    table = Table("recipe", "model", "epochs", "what it trains")
    for one in found:
        table.add_row(one.name, str(one.base["model"]), str(one.epochs), one.about.partition(". ")[0])
    out.print(table)


@group.command()
def show(name: Annotated[str, typer.Argument(help="The name of the recipe.")]) -> None:
    """Print a recipe as YAML: what it is about, its source, its epochs and its settings."""
    from ..spec.recipes import recipe

    typer.echo(recipe(name).text, nl=False)
