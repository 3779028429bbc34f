"""The root of the `hpo` command: the options that every command shares, and how errors are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand

from .. import errors
from ..installation import check_installation
from ..plain_text import plain
from .commands import COMMANDS
from .groups import Group
from .root_options import in_front

if TYPE_CHECKING:
    from ..settings import Settings

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


class NotImported(TyperCommand):
    """A command, or a group of them, whose modules are imported when it runs or its help is shown."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=COMMANDS[name].help_line, hidden=COMMANDS[name].hidden)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command itself, which takes the place of this one."""
        COMMANDS[str(self.name)].load()
        command: Any = typer.main.get_command(app)
        return command.commands[self.name].make_context(info_name, args, parent=parent, **extra)


class Root(Group):
    """The group of all commands. Only what runs is imported, unless `whole` has imported all of them."""

    is_whole = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a name, or None."""
        if self.is_whole:
            return self.commands.get(cmd_name)
        return NotImported(cmd_name) if cmd_name in COMMANDS else None


app = typer.Typer(
    cls=Root,
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
        from importlib.metadata import version

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
    from ..settings import Settings

    context.obj = Settings.load(home=home, url=url, token_file=token_file)


def whole() -> Root:
    """Return the root with all commands imported, for what goes through them and their options."""
    for place in COMMANDS.values():
        place.load()
    root: Any = typer.main.get_command(app)
    root.is_whole = True
    assert isinstance(root, Root)  # noqa: S101 - a fact of typer
    return root


def settings_of(context: typer.Context) -> Settings:
    """Return the settings made from the root options."""
    from ..settings import Settings

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


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Turn errors of the disk into a sentence that says what could not be written.

    Raises:
        SetupError: names the path, and what the system says.
    """
    try:
        yield
    except OSError as error:
        raise errors.SetupError(f"{path} cannot be written ({error.strerror or error})") from error


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
