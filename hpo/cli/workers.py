"""`hpo workers`: list the workers and what they do, and let one, or those of a host, have trials again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from ..activity import FORGOTTEN_SECONDS, duration, progress_line, stored_progress
from ..errors import SetupError
from .app import app, out, settings_of
from .groups import Group
from .studies import AsJson, client_of

group = typer.Typer(cls=Group, help="List the workers, and let those in quarantine have trials again.")
app.add_typer(group, name="workers")


@group.callback(invoke_without_command=True)
def list_workers(
    context: typer.Context,
    *,
    show_all: Annotated[bool, typer.Option("--all", help="Also those not heard of for a day.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the workers, how far their trials are, and which get no trials because their machines failed."""
    if context.invoked_subcommand is not None:
        return
    with client_of(settings_of(context)) as client:
        found = client.workers()
    if as_json:
        typer.echo(json.dumps(found))
        return
    shown = [worker for worker in found if show_all or not is_forgotten(worker)]
    if not found:
        out.print("no worker was heard of yet: start one with `hpo-worker --gpu 0`, or `hpo-worker --cpu`")
        return
    table = Table("worker", "host", "device", "last heard of", "state")
    for worker in sorted(shown, key=lambda worker: (not worker["alive"], age_of(worker))):
        last_heard_of = f"{duration(age_of(worker))} ago"
        table.add_row(worker["name"], worker["host"], _device_of(worker), last_heard_of, state_of(worker))
    out.print(table)
    for line in hosts_in_quarantine(shown):
        out.print(line)
    if len(shown) < len(found):
        out.print(f"not shown: {len(found) - len(shown)} not heard of for a day (--all)")


@group.command()
def release(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Name of the worker, as `hpo workers` shows it.", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help="All workers of this host.", show_default=False)] = None,
) -> None:
    """Let a worker, or all workers of a host, have trials again: the machine was repaired."""
    if (name is None) == (host is None):
        raise SetupError("give the name of a worker, or --host HOST for all workers of a host")
    with client_of(settings_of(context)) as client:
        client.release_workers(name=name, host=host)
    whose = f"worker {name}" if host is None else f"the workers of {host}"
    out.print(f"{whose} may have trials again")


def age_of(worker: Mapping[str, Any]) -> float:
    """Return for how many seconds a worker was not heard of; an API of an earlier release leaves that to our clock."""
    seconds = worker.get("seconds_since_seen")
    if seconds is None:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(worker["last_seen"])).total_seconds()
    return max(0.0, float(seconds))


def is_forgotten(worker: Mapping[str, Any]) -> bool:
    """Return whether a worker was not heard of for so long that it hardly comes back, and is not in quarantine."""
    return age_of(worker) > FORGOTTEN_SECONDS and worker.get("quarantined_at") is None


def hosts_in_quarantine(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each host that is in quarantine, by the workers that the API has listed."""
    lines = {}
    for worker in found:
        if worker.get("host_quarantined_at") is not None:
            message = f" ({worker['host_fault_message']})" if worker["host_fault_message"] else ""
            lines[worker["host"]] = (
                f"host {worker['host']} is in quarantine until {_hour(worker['host_quarantined_until'])}: several of "
                f"its workers, and no others, failed alike: {worker['host_fault']}{message}; when it is repaired: "
                f"`hpo workers release --host {shlex.quote(worker['host'])}`"
            )
    return list(lines.values())


def state_of(worker: Mapping[str, Any]) -> str:
    """Return what a worker does, or why it gets no trials."""
    does = f"trains {trial_of(worker)}"
    if worker.get("quarantined_at") is not None:
        failed = f"{worker['faults']} faults in a row, the last: {worker['fault']}"
        message = f" ({worker['fault_message']})" if worker["fault_message"] else ""
        tries = "in quarantine, and trains one trial to show that it is well"
        until = _hour(worker["quarantined_until"])
        state = tries if worker["trial_id"] is not None else f"in quarantine until {until}"
        return f"{state}: {failed}{message}"
    if worker["trial_id"] is not None:
        return (does if worker["alive"] else f"silent; {does} when it was last heard of") + missing_of(worker)
    if not worker["alive"]:
        return "silent"
    host = ": its host is in quarantine" if worker.get("host_quarantined_at") is not None else ""
    return f"waits{host}{missing_of(worker)}"


def trial_of(worker: Mapping[str, Any]) -> str:
    """Return the trial of a worker and how far it is, as far as the API has said."""
    if worker.get("trial_number") is None:  # an API of an earlier release
        return "a trial"
    name = f"trial {worker['trial_number']} of {worker['trial_study']}"
    progress = stored_progress(worker["progress"])
    return name if progress is None else f"{name}: {progress_line(progress)}"


def missing_of(worker: Mapping[str, Any]) -> str:
    """Return which studies a worker gets no trials of because it has not found their files; else an empty text."""
    return "".join(
        f"; nothing of {missing['study']} until {_hour(missing['until'])}, whose files it lacks ({missing['message']})"
        for missing in worker.get("missing_files", ())
    )


def _device_of(worker: Mapping[str, Any]) -> str:
    device, gpus, nodes = str(worker.get("gpu_name") or worker["device"]), worker.get("gpus", 1), worker.get("nodes", 1)
    if worker.get("gpu_name") and gpus > 1:  # a CPU says so itself
        device = f"{gpus} x {device}"
    return device if nodes == 1 else f"{device}, {nodes} machines"


def _hour(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%H:%M} UTC"
