"""`hpo trial`: show, cancel, retry and delete one trial of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ..activity import progress_line, stored_progress
from .app import app, out, settings_of
from .groups import Group
from .studies import AsJson, Name, Yes, client_of

if TYPE_CHECKING:
    from ..protocol import LoadedWeights

group = typer.Typer(cls=Group, no_args_is_help=True, help="Show, cancel, retry and delete a trial.")
app.add_typer(group, name="trial")

Number = Annotated[int, typer.Argument(help="Number of the trial.", min=0, show_default=False)]


@group.command()
def show(
    context: typer.Context,
    name: Name,
    number: Number,
    as_json: AsJson = False,
) -> None:
    """Show one trial: its state, how far it is, metrics and parameters, and the weights that it started from."""
    import yaml

    from ..protocol import LoadedWeights

    with client_of(settings_of(context)) as client:
        found = client.trial(name, number)
    if as_json:
        typer.echo(json.dumps(found))
        return
    kind = f" ({found['failure_kind']})" if found["failure_kind"] else ""
    attempts = f", attempt {found['attempt']}" if found["attempt"] > 1 else ""
    worker = f", on {found['worker']}" if found["worker"] else ""
    out.print(f"trial {number}: {found['state']}{kind}, {found['epochs_done']} epochs{attempts}{worker}")
    if (progress := stored_progress(found.get("progress"))) is not None:
        out.print(progress_line(progress))
    if found.get("origin"):
        out.print(f"imported: {found['origin']}")
    if found["failure_message"]:
        out.print(found["failure_message"].partition("\n")[0])
    if found.get("waits_for"):
        out.print(f"waits: {found['waits_for']}")
    metrics = found["metrics"] or found["last_metrics"] or {}
    if metrics:
        out.print(", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items()))
    out.print(yaml.safe_dump(dict(found["params"]), sort_keys=False), end="")
    for loaded in found["weights"]:
        for line in weights_lines(LoadedWeights.model_validate(loaded)):
            out.print(line)


@group.command()
def cancel(context: typer.Context, name: Name, number: Number) -> None:
    """Cancel a trial: one that runs ends at its next heartbeat and keeps what it has measured."""
    with client_of(settings_of(context)) as client:
        found = client.cancel_trial(name, number)
    ends = "; it ends at its next heartbeat" if found["state"] == "running" else ""
    out.print(f"trial {number} is {found['state']}{ends}")


@group.command()
def delete(context: typer.Context, name: Name, number: Number, yes: Yes = False) -> None:
    """Take a trial that has ended out of its study: nothing learns from it any more, and its checkpoint may go.

    Its number is not given again, and the device time that it took stays spent.
    """
    with client_of(settings_of(context)) as client:
        if not yes:
            state = client.trial(name, number)["state"]
            typer.confirm(f"Take trial {number} ({state}) out of study {name} for good?", abort=True)
        client.delete_trial(name, number)
    out.print(
        f"trial {number} is out of study {name}; workers remove its checkpoint when they clean up, or `hpo gc` does"
    )


@group.command()
def retry(context: typer.Context, name: Name, number: Number) -> None:
    """Train the configuration of a trial again, as a new trial with another seed; the old one stays as it is."""
    with client_of(settings_of(context)) as client:
        added = client.replicate_trial(name, number)
    out.print(f"trial {added['number']} trains the configuration of trial {number} again")


def weights_lines(loaded: LoadedWeights) -> Iterator[str]:
    """Yield lines about the weights that a trial started from."""
    stream = f" ({loaded.stream})" if loaded.stream else ""
    network = f", {loaded.network}" if loaded.network else ""
    yield f"weights{stream}: {loaded.source}, SHA-256 {loaded.sha256}, layout: {loaded.layout}{network}"
    yield f"  {loaded.loaded} tensors loaded"
    groups = {
        "adapted in shape": loaded.adapted,
        "drawn anew, of the head": loaded.reset,
        "drawn anew, not in the file": loaded.kept,
        "of the file, not needed": loaded.dropped,
    }
    for words, tensors in groups.items():
        if tensors.count:
            more = ", ..." if tensors.count > len(tensors.first) else ""
            yield f"  {tensors.count} {words}: {', '.join(tensors.first)}{more}"
    yield from (f"  {note}" for note in loaded.notes)
