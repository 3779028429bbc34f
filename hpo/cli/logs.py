"""`hpo logs`: what happened in a study, and what one of its trials printed, wherever it ran."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from ..client.http import Client
from ..errors import SetupError
from .app import app, err, out, settings_of
from .studies import Name, client_of

FOLLOW_SECONDS: Final = 1.0
FOLLOW_LOG_SECONDS: Final = 5.0
"""The same for the log of a trial, of which workers send news every half minute."""


@app.command()
def logs(
    context: typer.Context,
    name: Name,
    number: Annotated[
        int | None, typer.Argument(help="Number of a trial: print its log.", min=0, show_default=False)
    ] = None,
    *,
    attempt: Annotated[
        int | None, typer.Option(help="Of this attempt (default: the last one).", min=1, show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until interrupted.")] = False,
) -> None:
    """Print what happened in a study, oldest first; or what the worker of one trial printed, from any machine."""
    if number is None and attempt is not None:
        raise SetupError("--attempt is for the log of a trial: give its number after the name of the study")
    with client_of(settings_of(context)) as client:
        if number is None:
            _print_events(client, name, follow=follow)
        else:
            _print_log(client, name, number, attempt=attempt, follow=follow)


def _print_events(client: Client, name: str, *, follow: bool) -> None:
    last = 0
    while True:
        events = client.events(name, after=last)
        for event in events:
            last = event["id"]
            out.print(event_line(event))
        if not events:
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def _print_log(client: Client, name: str, number: int, *, attempt: int | None, follow: bool) -> None:
    """Print the log of an attempt; to follow it, ask for what is new until the attempt has ended."""
    found = client.trial_log(name, number, attempt=attempt)
    err.print(f"trial {number}, attempt {found['attempt']}, on {found['worker']}")
    if found["start"]:
        err.print(f"the first {found['start']} bytes were not kept")
    if not found["text"] and not follow:
        err.print("its worker has sent nothing yet; workers of earlier releases send no logs")
    out.print(_lines(found["text"]), end="")
    while follow and found["ended_as"] is None:
        time.sleep(FOLLOW_LOG_SECONDS)
        found = client.trial_log(name, number, attempt=found["attempt"], after=found["stop"])
        out.print(_lines(found["text"]), end="")
    if found["ended_as"] is not None:
        err.print(f"the attempt has ended: {found['ended_as']}")


def _lines(text: str) -> str:
    """Return the text with a line for each state of a bar that was drawn over itself."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def event_line(event: dict[str, Any]) -> str:
    """Return an event as a line: when, which trial, what, who, and the details."""
    trial = f"trial {event['trial_number']}" if event.get("trial_number") is not None else "study"
    known = {key: value for key, value in (event.get("detail") or {}).items() if value is not None}
    detail = " ".join(f"{key}={_shown(value)}" for key, value in known.items())
    return f"{str(event['at'])[:19]} {trial:<9} {event['kind']:<12} {event.get('actor') or '':<16} {detail}"


def _shown(value: Any) -> str:
    """Return a detail for a person: four digits of a number, and metrics without quotes."""
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_shown(inner)}' for key, inner in value.items())})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
