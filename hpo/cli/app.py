"""The root of the `hpo` command: the options that every command shares, and how errors are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from .. import errors
from ..installation import check_installation
from ..plain_text import plain
from ..settings import Settings
from .root_options import in_front

EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.SpecError, 2),
    (errors.NotFoundError, 3),
    (errors.ConflictError, 4),
    (errors.AuthenticationError, 5),
    (errors.PermissionDeniedError, 5),
    (errors.StoreUnavailableError, 6),
    (errors.HpoError, 1),
)
"""Exit codes by class of error; the first match counts. 0 is success, 2 also means wrong usage."""

app = typer.Typer(
    name="hpo",
    help="Find the best video model that your GPU-hours can buy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PIPE_COLUMNS = 300
"""Width of tables in columns if the output is not a terminal: in a file or a pipe they need not be cut."""


class PlainConsole(Console):
    """Prints text as it is: what others wrote neither steers the terminal nor is read as markup.

    For markup of ours pass `markup=True`, and `rich.markup.escape` what is put into it.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return what is printed of a string: all strings, those in tables included, come through here."""
        return super().render_str(plain(text), **options)


out = PlainConsole(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
err = PlainConsole(stderr=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"video-hpo {version('video-hpo')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", envvar="HPO_HOME", help="Data directory.", show_default=False)
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", envvar="HPO_URL", help="Address of the API.", show_default=False)
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the API token.", show_default=False)
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = Settings.load(home=home, url=url, token_file=token_file)


def settings_of(context: typer.Context) -> Settings:
    """Return the settings made from the root options."""
    found = context.find_object(Settings)
    assert found is not None, "every command runs below the root callback"  # noqa: S101 - a fact of typer
    return found


def exit_code(error: Exception) -> int:
    """Return the exit status of `error`."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


@contextmanager
def one_sentence_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of `models` and `data`, which do not know our classes, into errors that are printed as one sentence.

    Raises:
        HpoError: with the message of the error that was caught.
    """
    try:
        yield
    except kinds as error:
        raise errors.HpoError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the `hpo` command. A mistake of the user is reported in one sentence, without a traceback.

    Raises:
        SystemExit: always; the status is 0, or that of the error in `EXIT_CODES`.
    """
    try:
        check_installation()
        app(args=in_front(sys.argv[1:] if arguments is None else arguments))
    except errors.HpoError as error:
        print_error(error)
        raise SystemExit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def print_error(error: errors.HpoError) -> None:
    """Print an error: one line, or one line per wrong field of a spec."""
    lines = [str(issue) for issue in error.issues] if isinstance(error, errors.SpecError) else [str(error)]
    for line in lines:
        err.print("error: ", style="red", end="")
        err.print(line)
