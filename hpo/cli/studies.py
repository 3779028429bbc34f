"""`hpo study`: create, list, show, pause, resume, stop and delete studies."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..activity import progress_line, stored_progress
from ..errors import DataNotSeenError, HpoError
from ..settings import Settings
from .app import app, err, out, settings_of
from .files import counted, print_deletion
from .groups import Group
from .spec_check import few_clips_of, search_fragment, validation_clips, with_models
from .study_lines import data_set_of, hours, start_of_worker, study_board, time_left_of, trials_of, workers_of

if TYPE_CHECKING:
    from ..client.http import Client
    from ..spec import StudySpec

group = typer.Typer(cls=Group, no_args_is_help=True, help="Create and control studies.")
app.add_typer(group, name="study")

_COMPLETION_SECONDS = 3.0
"""For how long a shell waits for the names that complete a word."""
_RUNNING_SHOWN = 16
"""Running trials of which a study is shown with a line each."""


def _known_names(incomplete: str) -> list[str]:
    """Return the names of studies that begin like this, for the completion of the shell; none without a service."""
    try:
        with client_of(Settings.load(), timeout=_COMPLETION_SECONDS) as client:
            return [study["name"] for study in client.studies() if study["name"].startswith(incomplete)]
    except HpoError:
        return []  # a shell that completes a word has no place for a sentence


Name = Annotated[str, typer.Argument(help="Name of the study.", show_default=False, autocompletion=_known_names)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def client_of(settings: Settings, *, timeout: float | None = None) -> Client:
    """Return a client of the API that the settings name.

    Args:
        timeout: seconds that an answer may take; None for as long as the service may compute.
    """
    from ..client.http import TIMEOUT_SECONDS, Client

    proof, trusted = settings.proving_file, settings.ca_file
    return Client(
        settings.api_url, settings.token, timeout=timeout or TIMEOUT_SECONDS, server_file=proof, ca_file=trusted
    )


@group.command()
def create(
    context: typer.Context,
    spec_file: Annotated[
        Path, typer.Argument(help="Study spec, YAML or JSON; - reads it from standard input.", show_default=False)
    ],
    only_check: Annotated[
        bool, typer.Option("--check", help="Say what the study would be, and store nothing; needs no service.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a study spec and create the study. A relative path in it is one of the current folder."""
    from ..spec import dump_spec
    from ..spec.paths import with_absolute_paths

    spec = with_absolute_paths(_read_spec(spec_file), Path.cwd())
    checked = with_models(spec)
    if only_check:
        from .preview import preview

        for line in preview(checked, with_costs=True):
            out.print(line)
        return
    with client_of(settings_of(context)) as client:
        study = client.create_study(dump_spec(spec))
    if study["few_clips"] is None:  # the lists may be on this machine alone
        with suppress(DataNotSeenError):
            study["few_clips"] = few_clips_of(spec, validation_clips(spec))
    if as_json:
        typer.echo(json.dumps(study))
        return
    for line in [*earlier_of(study), *size_of(study), *warnings_of(study)]:
        out.print(line)
    out.print(f"study {study['name']} is active; start a worker with {start_of_worker(study)}")


def _read_spec(file: Path) -> StudySpec:
    from ..spec import load_spec, parse_spec
    from ..spec.load import decode

    if str(file) != "-":
        return load_spec(file, search_fragment)
    return parse_spec(decode(sys.stdin.read(), source="standard input"), search_fragment)


@group.command("list")
def list_studies(context: typer.Context, as_json: AsJson = False) -> None:
    """List the studies."""
    with client_of(settings_of(context)) as client:
        studies = client.studies()
    if as_json:
        typer.echo(json.dumps(studies))
        return
    if not studies:
        out.print("there is no study yet; create one with `hpo study create SPEC.yaml`")
        return
    board = study_board(studies)
    out.print(board.table(out.width))
    if left := board.left_out(out.width):
        out.print(f"not shown in {out.width} columns: {', '.join(left)}")
    for study in studies:
        if study.get("degraded"):
            out.print(f"{study['name']}: warning: {study['degraded']}")


@group.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one study."""
    with client_of(settings_of(context)) as client:
        study = client.study(name)
        running = [] if as_json else client.trials(name, states=["running"])
        workers = [] if as_json else client.workers()
    if as_json:
        typer.echo(json.dumps(study))
        return
    out.print(f"{study['name']}: {state_of(study)}")
    out.print(f"trials: {trials_of(study)}")
    if study.get("imported"):
        out.print(f"imported: {counted(study['imported'], 'result')} from elsewhere, which the optimizer learns from")
    out.print(f"GPU hours: {usage_of(study)}{saved_of(study)}")
    for line in [*time_left_of(study), *best_of(study), *workers_of(study, workers), *running_of(running)]:
        out.print(line)
    for line in [*data_set_of(study), *warnings_of(study)]:
        out.print(line)
    if study["importance"]:
        out.print(study["importance"]["message"])
    for line in [*earlier_of(study), *size_of(study)]:
        out.print(line)
    if study["finalists"]:
        out.print(finalists_of(study))
    if study.get("note"):
        out.print(f"note: {study['note']}")
    if study["guesses_waiting"]:
        out.print(f"to be tried next: {study['guesses_waiting']} enqueued configurations")


@group.command()
def pause(context: typer.Context, name: Name) -> None:
    """Pause a study: its running trials write a checkpoint and pause."""
    with client_of(settings_of(context)) as client:
        print_state(client.pause_study(name))


@group.command()
def resume(context: typer.Context, name: Name) -> None:
    """Resume a paused study."""
    with client_of(settings_of(context)) as client:
        print_state(client.resume_study(name))


@group.command()
def stop(context: typer.Context, name: Name, yes: Yes = False) -> None:
    """Stop a study: running trials end with the results they have, and no new ones begin."""
    with client_of(settings_of(context)) as client:
        running = client.study(name)["trial_counts"].get("running", 0)
        if not yes:
            end = f" and end its {counted(running, 'running trial')}" if running else ""
            typer.confirm(f"Stop study {name}{end}?", abort=True)
        print_state(client.stop_study(name))


@group.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a study with its trials, their curves and their checkpoints."""
    if not yes:
        typer.confirm(f"Delete study {name} with all its trials and their checkpoints?", abort=True)
    settings = settings_of(context)
    with client_of(settings) as client:
        deleted = client.delete_study(name)
    out.print(f"study {name} is deleted")
    print_deletion(deleted, settings.checkpoint_dir)


def state_of(study: Mapping[str, Any]) -> str:
    """Return the state of a study, with its reason if it has one."""
    return str(study["state"]) + (f" ({study['state_reason']})" if study.get("state_reason") else "")


def running_of(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each running trial: its worker, and how far it is."""
    lines = []
    for trial in trials[:_RUNNING_SHOWN]:
        progress = stored_progress(trial.get("progress"))
        far = f": {progress_line(progress)}" if progress is not None else ""
        lines.append(f"running: trial {trial['number']} on {trial['worker']}{far}")
    more = len(trials) - len(lines)
    return [*lines, *([f"  and {more} more; `hpo workers` lists all"] if more else [])]


def usage_of(study: Mapping[str, Any]) -> str:
    """Return the GPU hours spent, the limit if there is one, and what they went into."""
    limit, kinds = study["spec"]["budget"]["gpu_hours"], study["gpu_hours_by_kind"]
    spent = hours(study["gpu_hours_spent"]) + (f" of {limit:g}" if limit is not None else "")
    names = {"trained": "in epochs", "failed": "in trials that failed", "startup": "in start-up and interrupted epochs"}
    parts = [f"{hours(kinds[kind])} {name}" for kind, name in names.items() if kinds[kind] > 0]
    return f"{spent}: {', '.join(parts)}" if len(parts) > 1 else spent


def size_of(study: Mapping[str, Any]) -> list[str]:
    """Return a line about a space that is going to be used up before the trials of the budget are."""
    count, limit = study["configurations"], study["spec"]["budget"]["trials"]
    if count is None or study["finished_at"] is not None or (limit is not None and count >= limit):
        return []
    return [f"the space has {count} configurations; the study ends when each has been tried"]


def saved_of(study: Mapping[str, Any]) -> str:
    """Return the GPU hours that early stopping has saved, in parentheses; an empty string if none."""
    saved = study["gpu_hours_saved"]
    return f" ({hours(saved)} more saved by early stopping)" if saved > 0 else ""


def best_of(study: Mapping[str, Any]) -> list[str]:
    """Return lines about the best configuration so far; none before one has a result."""
    from ..results.evidence import Evidence

    best = study["best"]
    if best is None:
        return []
    evidence = Evidence.model_validate(best["evidence"])
    return [f"best: trial {best['number']}", *(f"  {line}" for line in evidence.lines())]


WARNINGS: Final = ("degraded", "missing_data", "data_changed")
"""Fields of a study with sentences that warn."""


def warnings_of(study: Mapping[str, Any]) -> list[str]:
    """Return lines about what a study lacks, and about what its validation clips cannot show, if they are few."""
    from ..spec import stored_spec

    # An older API does not say all of them.
    degraded = [f"warning: {study[name]}" for name in WARNINGS if study.get(name)]
    evidence = study["best"]["evidence"] if study["best"] else {}
    sentence = study["few_clips"] or few_clips_of(stored_spec(study["spec"]), evidence.get("clips"))
    return degraded if sentence is None else [*degraded, f"note: {sentence}"]


def warn_if_degraded(study: Mapping[str, Any]) -> None:
    """Say beside a result what its study lacks at the moment, such as an optimizer, and that its data changed."""
    for name in ("degraded", "data_changed"):
        if study.get(name):
            err.print(f"{study['name']}: warning: {study[name]}")


def finalists_of(study: Mapping[str, Any]) -> str:
    """Return a sentence about the configurations that are trained again after the search."""
    rules = study["finalists"]
    if study["search_ended_at"] is None:
        return f"after the search the best {rules['top']} are trained again, up to {rules['seeds']} times each"
    trainings = "1 further training" if study["replicates"] == 1 else f"{study['replicates']} further trainings"
    return f"finalists: {trainings} of the best {rules['top']} configurations"


def earlier_of(study: Mapping[str, Any]) -> list[str]:
    """Return a line for each earlier study that the study learns from."""
    return [f"learns from {count} trials of {name}" for name, count in study["earlier_trials"].items()]


def print_state(study: Mapping[str, Any]) -> None:
    """Print in which state a study is now."""
    out.print(f"study {study['name']} is {state_of(study)}")
