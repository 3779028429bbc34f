"""`hpo study`: create, list, show, pause, resume, stop and delete studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..client.http import Client
from ..settings import Settings
from ..spec import dump_spec, load_spec
from .app import app, out, settings_of
from .spec_check import search_fragment, with_models

group = typer.Typer(no_args_is_help=True, help="Create and control studies.")
app.add_typer(group, name="study")

Name = Annotated[str, typer.Argument(help="Name of the study.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client_of(settings: Settings) -> Client:
    """Return a client of the API that the settings name."""
    return Client(settings.api_url, settings.token)


@group.command()
def create(
    context: typer.Context,
    spec_file: Annotated[Path, typer.Argument(help="Study spec, YAML or JSON.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check a study spec and create the study."""
    spec = load_spec(spec_file, search_fragment)
    with_models(spec)
    with client_of(settings_of(context)) as client:
        study = client.create_study(dump_spec(spec))
    if as_json:
        typer.echo(json.dumps(study))
        return
    for line in earlier_of(study):
        out.print(line, markup=False)
    out.print(f"study {study['name']} is active; start a worker with `hpo-worker --gpu 0` (or --cpu)")


@group.command("list")
def list_studies(context: typer.Context, as_json: AsJson = False) -> None:
    """List the studies."""
    with client_of(settings_of(context)) as client:
        studies = client.studies()
    if as_json:
        typer.echo(json.dumps(studies))
        return
    table = Table("study", "state", "trials", "GPU hours")
    for study in studies:
        table.add_row(study["name"], state_of(study), trials_of(study), hours(study["gpu_hours_spent"]))
    out.print(table)


@group.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one study."""
    with client_of(settings_of(context)) as client:
        study = client.study(name)
    if as_json:
        typer.echo(json.dumps(study))
        return
    out.print(f"{study['name']}: {state_of(study)}", markup=False)
    out.print(f"trials: {trials_of(study)}; GPU hours: {hours(study['gpu_hours_spent'])}{saved_of(study)}")
    for line in earlier_of(study):
        out.print(line, markup=False)
    if study["guesses_waiting"]:
        out.print(f"to be tried next: {study['guesses_waiting']} enqueued configurations")


@group.command()
def pause(context: typer.Context, name: Name) -> None:
    """Pause a study: its running trials write a checkpoint and pause."""
    with client_of(settings_of(context)) as client:
        _print_state(client.pause_study(name))


@group.command()
def resume(context: typer.Context, name: Name) -> None:
    """Resume a paused study."""
    with client_of(settings_of(context)) as client:
        _print_state(client.resume_study(name))


@group.command()
def stop(context: typer.Context, name: Name) -> None:
    """Stop a study: running trials end with the results they have, and no new ones begin."""
    with client_of(settings_of(context)) as client:
        _print_state(client.stop_study(name))


@group.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a study with its trials and curves (checkpoint files stay)."""
    if not yes:
        typer.confirm(f"Delete study {name} with all its trials?", abort=True)
    with client_of(settings_of(context)) as client:
        client.delete_study(name)
    out.print(f"study {name} is deleted")


def state_of(study: dict[str, Any]) -> str:
    """Return the state of a study, with its reason if it has one."""
    return str(study["state"]) + (f" ({study['state_reason']})" if study.get("state_reason") else "")


def trials_of(study: dict[str, Any]) -> str:
    """Return the numbers of trials by state, such as `8 completed, 3 stopped`."""
    counts = study["trial_counts"]
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none yet"


def hours(value: float) -> str:
    """Return hours with two decimals, or less than one hour with two digits, so that a short study does not show 0."""
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.2g}"


def saved_of(study: dict[str, Any]) -> str:
    """Return the GPU hours that early stopping has saved, in parentheses; an empty string if none."""
    saved = study["gpu_hours_saved"]
    return f" ({hours(saved)} more saved by early stopping)" if saved > 0 else ""


def earlier_of(study: dict[str, Any]) -> list[str]:
    """Return a line for each earlier study that the study learns from."""
    return [f"learns from {count} trials of {name}" for name, count in study["earlier_trials"].items()]


def _print_state(study: dict[str, Any]) -> None:
    out.print(f"study {study['name']} is {state_of(study)}", markup=False)
