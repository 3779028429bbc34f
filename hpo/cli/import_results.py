"""`hpo study import`: results of searches elsewhere as trials of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import out, settings_of
from .studies import AsJson, Name, client_of, group

if TYPE_CHECKING:
    from ..client.http import Client
    from ..importing import Fitted


@group.command("import")
def import_results(
    context: typer.Context,
    name: Name,
    file: Annotated[
        str,
        typer.Argument(
            help="CSV, table of W&B runs, Optuna database (a file, a journal or an address), or JSON snapshot of Ax.",
            show_default=False,
        ),
    ],
    *,
    form: Annotated[str, typer.Option("--from", help="auto, csv, wandb, optuna or ax.")] = "auto",
    study: Annotated[str | None, typer.Option(help="Name of the Optuna study, of several.", show_default=False)] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="OURS=THEIRS", help="What a parameter or metric is called there.", show_default=False
        ),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A parameter there to overlook.", show_default=False)
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="The value of a parameter that it lacks.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be imported, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take over results from elsewhere: the optimizer learns from them, and they count against no budget.

    What was imported before is not imported again.
    """
    from ..importing import FORMATS, Wishes, fit, read
    from ..importing.wording import nothing_fits, sentences
    from ..spec import stored_spec

    if form not in FORMATS:
        raise typer.BadParameter(f"--from {form}: choose one of {', '.join(FORMATS)}")
    wishes = Wishes(names=_pairs("--map", names), skip=frozenset(skip or ()), given=_pairs("--set", given))
    with client_of(settings_of(context)) as client:
        spec = stored_spec(client.study(name)["spec"])
        results = read(file, form=form, study=study)
        fitted = fit(spec, results, wishes)
        if not fitted.trials:
            raise nothing_fits(results, fitted)
        added = [] if dry_run else _sent(client, name, fitted)
    if as_json:
        report = {
            "source": results.source,
            "fit": len(fitted.trials),
            "added": added,
            "left_out": dict(fitted.left_out),
        }
        typer.echo(json.dumps({**report, "notes": list(fitted.notes)}))
        return
    for line in sentences(results, fitted, None if dry_run else added):
        out.print(line)


def _sent(client: Client, name: str, fitted: Fitted) -> list[int]:
    return client.import_trials(name, [trial.model_dump(mode="json") for trial in fitted.trials])["numbers"]


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, Any]:
    pairs = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise typer.BadParameter(f"{option} {text}: write two names with = between them, such as lr=learning_rate")
        pairs[name.strip()] = value.strip()
    return pairs
