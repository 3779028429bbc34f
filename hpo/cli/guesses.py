"""`hpo study enqueue`: have configurations tried next."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import GuessError, SpecIssue
from .app import out, settings_of
from .studies import AsJson, Name, client_of, group


@group.command()
def enqueue(
    context: typer.Context,
    name: Name,
    guesses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|KEY=VALUE...",
            help="Files with one configuration or a list of them (YAML, JSON), or the values of one configuration.",
            show_default=False,
        ),
    ] = None,
    again: Annotated[
        int | None,
        typer.Option(help="Number of a trial: its configuration is trained again with another seed.", min=0),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have configurations tried next; the optimizer chooses the parameters that are not given."""
    if (again is None) == (not guesses):
        raise typer.BadParameter("give configurations, or one trial with --again")
    if again is not None:
        _replicate(context, name, again, as_json=as_json)
        return
    wanted = read_guesses(guesses or [])
    with client_of(settings_of(context)) as client:
        found = client.enqueue(name, wanted)
    if as_json:
        typer.echo(json.dumps(found))
        return
    known = len(wanted) - found["added"]
    before = f", {known} already enqueued before" if known else ""
    out.print(f"{found['added']} added{before}; {found['waiting']} to be tried next")


def _replicate(context: typer.Context, name: str, number: int, *, as_json: bool) -> None:
    with client_of(settings_of(context)) as client:
        added = client.replicate_trial(name, number)
    if as_json:
        typer.echo(json.dumps(added))
        return
    out.print(f"trial {added['number']} trains the configuration of trial {added['replicate_of']} again")


def read_guesses(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Return the configurations in files, and the one that all `KEY=VALUE` arguments form together.

    Raises:
        SpecError: a file cannot be read or does not hold configurations, or a value is not a single one.
    """
    values: dict[str, object] = {}
    for argument in arguments:
        if "=" in argument:
            key, value = _pair(argument)
            if key in values:
                raise _wrong(key, f"is given twice, as {values[key]!r} and {value!r}: put several guesses into a file")
            values[key] = value
    files = [guess for argument in arguments if "=" not in argument for guess in _read(Path(argument))]
    return [*files, *([_flat(values, source="")] if values else [])]


def _pair(argument: str) -> tuple[str, object]:
    from ..spec.load import decode

    key, _, text = argument.partition("=")
    if not key.strip():
        raise _wrong(argument, "does not name a parameter: write KEY=VALUE")
    return key.strip(), decode(text, source=key.strip())


def _read(path: Path) -> Iterator[dict[str, Any]]:
    from ..spec.load import decode

    try:
        found = decode(path.read_text(encoding="utf-8"), source=str(path))
    except OSError as error:
        raise _wrong(str(path), f"cannot be read ({error.strerror}): name a file, or write KEY=VALUE") from error
    except UnicodeDecodeError as error:
        raise _wrong(str(path), f"is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    for guess in found if isinstance(found, list) else [found]:
        yield _flat(guess, source=str(path))


def _flat(guess: object, *, source: str) -> dict[str, Any]:
    from ..spec import flatten

    if not isinstance(guess, Mapping):
        raise _wrong(source, "must hold a configuration (parameter: value), or a list of them")
    try:
        flat = flatten({str(key): value for key, value in guess.items()})
    except ValueError as error:
        raise _wrong(source, str(error)) from error
    for key, value in flat.items():
        if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
            message = f"{value!r} is not a valid value: it must be a finite number, a word, true or false"
            raise _wrong(f"{source}: {key}" if source else key, message)
    return flat


def _wrong(path: str, message: str) -> GuessError:
    return GuessError([SpecIssue(path=path, message=message)])
