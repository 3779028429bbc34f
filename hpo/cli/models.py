"""`hpo models`: what the zoo holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from .app import app, out


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the models, their default clips and the options that can be searched as `model.NAME`."""
    from models import list_models, model_info

    infos = [model_info(name) for name in list_models()]
    if as_json:
        typer.echo(json.dumps([asdict(info) for info in infos], default=str))
        return
    table = Table("model", "family", "default clip (frames x stride, size)", "options")
    for info in infos:
        clip = f"{info.clip.frames} x {info.clip.stride}, {info.clip.size}"
        table.add_row(info.name, info.family, clip, ", ".join(hparam.name for hparam in info.hparams))
    out.print(table)
