"""`hpo models`: list the models of the zoo; the other commands of this group are in `model_check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from .app import app, out
from .groups import Group

group = typer.Typer(cls=Group, help="List the models, and check one.")
app.add_typer(group, name="models")


@group.callback(invoke_without_command=True)
def models(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the models: parameters at 400 classes, cost of the default clip (frames x stride), `model.NAME` options."""
    if context.invoked_subcommand is not None:
        return
    from models import list_models, model_info

    infos = [model_info(name) for name in list_models()]
    if as_json:
        typer.echo(json.dumps([asdict(info) for info in infos], default=str))
        return
    table = Table("model", "family", "parameters", "GFLOPs", "clip", "options", "paper")
    for info in infos:
        clip = f"{info.clip.frames}x{info.clip.stride} at {info.clip.size}"
        size = "" if info.parameters is None else f"{info.parameters / 1e6:.1f} M"
        cost = "" if info.gflops is None else f"{info.gflops:.1f}"
        options = ", ".join(hparam.name for hparam in info.hparams)
        table.add_row(info.name, info.family, size, cost, clip, options, info.paper)
    out.print(table)
