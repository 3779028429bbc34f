"""Options of `hpo` behind the name of a command."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

from hpo.cli import main
from hpo.cli.app import whole
from hpo.cli.commands import COMMANDS
from hpo.cli.root_options import EVERYWHERE, OWN, in_front


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["study", "list", "--url", "http://a"], ["--url", "http://a", "study", "list"]),
        (["study", "list", "--home=/h", "--json"], ["--home=/h", "study", "list", "--json"]),
        (
            ["--url", "http://a", "best", "x", "--url", "http://b"],
            ["--url", "http://a", "--url", "http://b", "best", "x"],
        ),
        (["demo", "--home", "here"], ["demo", "--home", "here"]),
        (["--home", "there", "demo", "--home", "here"], ["--home", "there", "demo", "--home", "here"]),
        (["demo", "--url", "http://a"], ["--url", "http://a", "demo"]),
        (["best", "--", "--url"], ["best", "--", "--url"]),
        (["study", "list", "--url"], ["--url"]),
    ],
)
def test_they_come_first(written: list[str], read: list[str]) -> None:
    assert in_front(written) == read


def _options(group: Any) -> Iterator[tuple[str, frozenset[str]]]:
    for name, command in group.commands.items():
        yield name, frozenset(option for parameter in command.params for option in parameter.opts)
        if hasattr(command, "commands"):
            yield from _options(command)


def test_the_commands_with_such_an_option_of_their_own_are_listed() -> None:
    found = {name: own & EVERYWHERE for name, own in _options(whole()) if own & EVERYWHERE}
    assert found == OWN


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"video-hpo {version('video-hpo')}\n")


def test_the_help_lists_what_the_commands_say_of_themselves() -> None:
    found = whole().commands
    assert found.keys() == COMMANDS.keys()
    for name, place in COMMANDS.items():
        said = (found[name].help or "").partition("\n\n")[0].replace("\n", " ")
        assert (place.help_line, place.hidden) == (said, found[name].hidden), name
