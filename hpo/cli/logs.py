"""`hpo logs`: what happened in a study, and what one of its trials printed, wherever it ran."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec, TypeVar

import typer

from ..activity import duration
from ..errors import SetupError, StoreUnavailableError
from ..sentences import event_sentence
from .app import app, err, out, settings_of
from .studies import Name, client_of

if TYPE_CHECKING:
    from ..client.http import Client

FOLLOW_SECONDS: Final = 1.0
FOLLOW_LOG_SECONDS: Final = 5.0
"""The same for the log of a trial, of which workers send news every half minute."""
AWAY_SECONDS: Final = 600.0
"""For how long a log that is followed asks a service that does not answer."""
_PAUSES_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 15.0)

P = ParamSpec("P")
T = TypeVar("T")


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
    as_json: Annotated[bool, typer.Option("--json", help="Print an event as JSON in each line.")] = False,
) -> None:
    """Print what happened in a study, oldest first; or what the worker of one trial printed, from any machine."""
    if number is None and attempt is not None:
        raise SetupError("--attempt is for the log of a trial: give its number after the name of the study")
    if number is not None and as_json:
        raise SetupError("--json is for what happened in a study: leave the number of the trial out")
    with client_of(settings_of(context)) as client:
        if number is None:
            _print_events(client, name, follow=follow, as_json=as_json)
        else:
            _print_log(client, name, number, attempt=attempt, follow=follow)


def _print_events(client: Client, name: str, *, follow: bool, as_json: bool) -> None:
    last = 0
    while True:
        events = client.events(name, after=last) if not last else _patiently(client.events, name, after=last)
        for event in events:
            last = event["id"]
            if as_json:
                typer.echo(json.dumps(event))
            else:
                out.print(event_line(event))
        if not events:
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def _patiently(ask: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Return the answer of a service that may be away for some time, such as one that is started again.

    Raises:
        StoreUnavailableError: nothing has answered for `AWAY_SECONDS`.
    """
    since: float | None = None
    for pause in chain(_PAUSES_SECONDS, repeat(_PAUSES_SECONDS[-1])):
        try:
            found = ask(*arguments, **options)
        except StoreUnavailableError as error:
            # By the clock: an address that nobody answers at takes as long as its timeout, on top of the pauses.
            now = time.monotonic()
            if since is None:
                since = now
                err.print(f"{error}; asking again for {duration(AWAY_SECONDS)}")
            elif now - since >= AWAY_SECONDS:
                raise
            time.sleep(pause)
        else:
            if since is not None:
                err.print("the service is back")
            return found
    raise AssertionError  # the pauses never end


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
        found = _patiently(client.trial_log, name, number, attempt=found["attempt"], after=found["stop"])
        out.print(_lines(found["text"]), end="")
    if found["ended_as"] is not None:
        err.print(f"the attempt has ended: {found['ended_as']}")


def _lines(text: str) -> str:
    """Return the text with a line for each state of a bar that was drawn over itself."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event as a line: when, in UTC, and what happened as a sentence."""
    sentence = event_sentence(
        event["kind"], event.get("detail") or {}, number=event.get("trial_number"), actor=event.get("actor") or ""
    )
    return f"{str(event['at'])[:19].replace('T', ' ')}  {sentence}"
