"""`hpo finalists`: train the leaders of a study again with fresh seeds."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .app import app, out, settings_of
from .studies import AsJson, Name, client_of, finalists_of, state_of


@app.command()
def finalists(  # noqa: PLR0917 - the options of the command
    context: typer.Context,
    name: Name,
    top: Annotated[int, typer.Option(help="How many configurations at most.")] = 3,
    seeds: Annotated[int, typer.Option(help="How many further trainings of each at most.")] = 3,
    share: Annotated[float, typer.Option(help="Share of the budget that they may use.")] = 0.15,
    probability: Annotated[
        float, typer.Option(help="Enough once one of them is the best with this probability.")
    ] = 0.9,
    now: Annotated[bool, typer.Option("--now", help="End the search of an active study for it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the best configurations again with fresh seeds, until one of them is clear.

    It happens when the search ends, or at once with --now. A study that has ended becomes active again for it, and may
    use the share of its budget beyond it. `hpo best` and `hpo export` then carry what was found.
    """
    with client_of(settings_of(context)) as client:
        study = client.train_finalists(name, top=top, seeds=seeds, share=share, probability=probability, end_search=now)
    if as_json:
        typer.echo(json.dumps(study))
        return
    out.print(f"study {study['name']} is {state_of(study)}")
    out.print(finalists_of(study))
