"""The options of `hpo` that people write after the name of a command, too: `hpo study list --url URL`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

EVERYWHERE: Final = frozenset({"--home", "--url", "--token-file"})
"""Options of `hpo` that each command takes; all have a value."""
OWN: Final[Mapping[str, frozenset[str]]] = {"demo": frozenset({"--home"})}
"""Those that mean something else after the command of that name."""


def in_front(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the options that every command takes before its name, where the root reads them.

    What follows `--` stays where it is. If an option is given twice, the last one wins, as usual.
    """
    moved: list[str] = []
    kept: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            kept += [argument, *left]
            break
        name, equals, _ = argument.partition("=")
        own = OWN.get(next((word for word in kept if not word.startswith("-")), ""), frozenset())
        if name not in EVERYWHERE - own:
            kept.append(argument)
            continue
        moved.append(argument)
        if not equals:
            value = next(left, None)
            if value is None:
                return [argument]  # alone, so that what is said is that its value is missing
            moved.append(value)
    return [*moved, *kept]
