"""`hpo report`, `hpo importance`: what a study shows about its parameters, for a person."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from ..errors import ConflictError, SetupError
from .app import app, out, settings_of
from .studies import AsJson, Name, client_of

if TYPE_CHECKING:
    from ..report.material import Material

_MARKDOWN: Final = (".md", ".markdown")


@app.command()
def report(
    context: typer.Context,
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write, .html, .md or .png; NAME.html without it.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a study as one file: HTML with everything, Markdown without figures, or a picture with the main ones."""
    file = Path(f"{name}.html") if output is None else output
    form = file.suffix.lower()
    if form not in ("", ".html", ".htm", ".png", *_MARKDOWN):
        raise SetupError(f"{file}: a report is HTML, Markdown or PNG; let the name end in .html, .md or .png")
    with client_of(settings_of(context)) as client:
        from ..report.material import read

        material = read(client, name)
    write = _picture if form == ".png" else _markdown if form in _MARKDOWN else _html
    written = write(material)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written)
    except OSError as error:
        raise SetupError(f"{file} cannot be written ({error.strerror})") from error
    out.print(f"wrote {file}" + (": open it in a browser" if write is _html else ""))


def _picture(material: Material) -> bytes:
    from ..report.findings import find
    from ..report.picture import draw

    return draw(material, find(material))


def _html(material: Material) -> bytes:
    from plotly.offline import get_plotlyjs

    from ..report.findings import find
    from ..report.page import render

    return render(material, find(material), get_plotlyjs()).encode()


def _markdown(material: Material) -> bytes:
    from ..report.findings import find
    from ..report.markdown import render_markdown

    return render_markdown(material, find(material)).encode()


@app.command()
def importance(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show which parameters matter for the objectives of a study, and in which direction."""
    with client_of(settings_of(context)) as client:
        from ..optimizer.generator import GeneratorError
        from ..optimizer.importance import explained_sentence
        from ..optimizer.insight import Insight
        from ..report.material import read

        material = read(client, name)
    try:
        insight = Insight(material.spec, material.records)
        found = {metric: insight.importances(metric) for metric in material.objectives}
        explained = {metric: insight.explained(metric) for metric in found}
    except GeneratorError as error:
        raise ConflictError(f"study {name}: {error}") from error
    if as_json:
        typer.echo(json.dumps({metric: [asdict(row) for row in rows] for metric, rows in found.items()}))
        return
    for metric, rows in found.items():
        out.print(explained_sentence(metric, explained[metric]))
        if explained[metric] is None:
            continue
        table = Table("parameter", f"share of {metric}", "90 % interval", "direction")
        for row in rows:
            table.add_row(row.parameter, f"{row.share:.0%}", row.interval, row.direction(metric))
        out.print(table)
    out.print(f"by a model of {insight.used} trials; `hpo report {name}` shows how far it can be believed")
